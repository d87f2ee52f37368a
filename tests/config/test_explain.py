"""Errors in a user's own config files name the file, what is wrong, and the way out."""

from pathlib import Path

import pytest

from mnist_exp import config
from mnist_exp.console import exits
from mnist_exp.errors import ConfigError

FILES = {
    ("experiment", "hidden: 16\n"): ("experiment/mine.yaml sets what is not in experiment", "# @package _global_"),
    ("experiment", "# @package _global_\nhiden: 16\n"): ("mine.yaml, line 2: There is no setting 'hiden'", "hidden"),
    ("experiment", "# @package _global_\nhidden: [64, 32\n"): ("mine.yaml, line 3", "Close the bracket of line 2."),
    ("experiment", "hidden: 3\n\tlr: 1\n"): ("mine.yaml, line 2", "Indent with spaces"),
    ("experiment", "name: a: b\n"): ("mine/experiment/mine.yaml, line 1", "quote a text that holds a colon"),
    ("experiment", 'name: "a\nlr: 1\n'): ("mine.yaml, line 3", "Close the quotes of line 1."),
    ("experiment", "name: @x\n"): ("mine.yaml, line 1: found character '@'", "Quote a text"),
    ("experiment", "name: *x\n"): ("mine.yaml, line 1", "Quote a text"),
    ("experiment", "hidden: 3\nlr 1\n"): ("mine.yaml, line 3", "a colon, a blank and a value"),
    ("experiment", "# @package _global_\ndefaults:\n  - override /tracking: off\n"): (
        "line 3: tracking takes",
        "/tracking: 'off'",
    ),
    ("experiment", "# @package _global_\ndefaults:\n  - override /optimiser: sgd\n"): ("'optimiser'", "'optimizer'"),
    ("optimizer", "lr: 0.1\noptimizer:\n  _target_: torch.optim.SGD\n"): ("optimizer.optimizer is set", "_global_"),
    ("experiment", "# @package _global_\nsearch: tpe\n"): ("line 2: search is chosen in", "- override /search: tpe"),
    ("tracking", "urii: x\n"): ("mine.yaml, line 1: There is no setting 'tracking.urii'.", "tracking.uri"),
}


@pytest.mark.integration
@pytest.mark.parametrize(("group", "text"), FILES)
def test_a_file_of_the_user_is_explained(group: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path("mine") / group / "mine.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    here = f"hydra.searchpath=[file://{Path('mine').resolve()}]"
    code = exits.run(lambda: config.compose([here, f"{group}=mine"]))
    err = capsys.readouterr().err
    sentence, way_out = FILES[group, text]
    assert code == 2
    assert sentence in err
    assert way_out in err.partition("help: ")[2]


def test_compose_says_itself_which_line_is_no_yaml() -> None:
    path = Path("mine/experiment/mine.yaml")
    path.parent.mkdir(parents=True)
    path.write_text("hidden: [64, 32\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml, line 2: expected"):
        config.compose([f"hydra.searchpath=[file://{Path('mine').resolve()}]", "experiment=mine"])


@pytest.mark.parametrize(
    ("typed", "way_out"),
    [
        ("+experiment=beginner", "without +: experiment="),
        ("~tracking", "tracking=off"),
        ("~lr lr=0.1", "Drop '~lr'."),
        ("epochs=1 ~epochs=10", "Drop '~epochs=10'."),
        ("~model.dropout model.dropout=0.1", "Drop '~model.dropout'."),
    ],
)
def test_a_choice_is_explained(typed: str, way_out: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert exits.run(lambda: config.compose(typed.split())) == 2
    assert way_out in capsys.readouterr().err
