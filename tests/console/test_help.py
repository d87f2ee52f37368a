"""`--help` is short; `--help all` is the reference: each setting, each choice with its keywords, each option."""

import contextlib
import dataclasses
import io
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra._internal.hydra import Hydra
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from omegaconf import OmegaConf

from mnist_exp import config as configs
from mnist_exp import train
from mnist_exp.config import choices, guesses, reference
from mnist_exp.console import help

Command = Callable[..., tuple[int, str, str]]


class Screen(io.StringIO):
    """A terminal of 80 columns."""

    def isatty(self) -> bool:
        return True


def shown(*words: str, screen: io.StringIO | None = None) -> str:
    """What `mnist-exp --help` shows of *words*."""
    screen = screen or io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(screen):
        patch.setenv("COLUMNS", "80")
        patch.setattr("sys.argv", ["mnist-exp", *words, "--help"])
        with pytest.raises(SystemExit) as left:
            train.cli()
    assert not left.value.code
    return screen.getvalue()


@pytest.fixture(scope="module")
def everything() -> str:
    """The whole reference, made once for all tests of this file."""
    return shown("all")


def line_of(key: str, page: str) -> str:
    return next(line for line in page.splitlines() if line.startswith(f"  {key}="))


def test_every_setting_is_there_with_its_meaning_and_the_value_that_is_used(everything: str) -> None:
    composed = configs.flatten(configs.to_dict(configs.compose()))
    for name, setting in configs.settings().items():
        line = line_of(name, everything)
        assert setting.help in line
        assert setting.rule.text in line
        if name in composed:
            assert line.split()[0] == f"{name}={reference.spelled(composed[name])}".split()[0]
    assert line_of("data.mean", everything).split()[0] == "data.mean=0.1307"


def test_every_choice_is_there_with_its_keywords(everything: str) -> None:
    for group in choices.groups():
        options = choices.options(group)
        assert any(line.split() == f"{group}: {', '.join(options)}".split() for line in everything.splitlines())
        for option in options:
            assert f"\n{group}={option}: " in everything
    for key in choices.keywords():
        assert key.startswith("callbacks.") or line_of(key, everything)  # of those, each is a node of its own
    assert line_of("callbacks.macro_f1.split", everything)


def ours(group: str) -> dict[str, type]:
    """The classes of the options of our launchers or sweepers, by their names."""
    Plugins.instance()  # registers them
    store = ConfigStore.instance()
    nodes = {file.removesuffix(".yaml"): store.load(f"hydra/{group}/{file}") for file in store.list(f"hydra/{group}")}
    kinds = {name: OmegaConf.get_type(each.node) for name, each in nodes.items() if each.provider == "mnist_exp"}
    return {name: kind for name, kind in kinds.items() if kind}


@pytest.mark.parametrize("group", ["launcher", "sweeper"])
def test_every_option_of_every_launcher_and_sweeper_is_there(group: str, everything: str) -> None:
    kinds = ours(group)
    assert kinds
    assert kinds.keys() <= guesses.CHOSEN.keys()
    for page in (everything, shown(group)):
        for kind in kinds.values():
            for option in reference.of_options(kind, f"hydra.{group}"):
                assert f"  {option.key}={option.value} " in page
                assert option.meaning in page
            for field in dataclasses.fields(kind):
                assert field.name.startswith("_") or line_of(f"hydra.{group}.{field.name}", page)


@pytest.mark.parametrize("name", ["local", "grid", "race", "optuna"])
def test_the_options_of_each_have_a_heading(name: str, everything: str) -> None:
    (kind,) = [kinds[name] for group in ("launcher", "sweeper") if name in (kinds := ours(group))]
    assert [node for _, _, node in help.OPTIONS if help._class(node) is kind]


def test_what_belongs_to_schedulers_is_there(everything: str) -> None:
    for key in ("hydra.launcher.partition", "hydra.launcher.cpus_per_job", "hydra.sweeper.sampler.n_startup_trials"):
        assert line_of(key, everything)


def test_it_leaves_no_logger_quiet(everything: str) -> None:
    """`--info` would print nothing in a later test."""
    assert everything
    assert logging.getLogger("hydra").level == logging.NOTSET


def test_no_line_is_unfinished(everything: str) -> None:
    for sign in ("???", "$APP", "mnist_exp.help", "._target_=torch", "$$"):
        assert sign not in everything
    assert "${mnist_exp.gpus:${device}}" in everything, "a file's reference stays as it is"


def test_by_itself_it_is_short_and_fits_a_terminal() -> None:
    page = shown(screen=Screen())
    assert all(len(line) <= 80 for line in page.splitlines())
    assert len(page.splitlines()) < 90
    assert "python -m mnist_exp.train hidden=256" in page
    assert "--help all" in page
    assert "hydra.launcher." not in page


@pytest.mark.parametrize("topic", ["all", "launcher"])
def test_more_of_it_fits_a_terminal_but_for_what_is_typed_in_one_piece(topic: str) -> None:
    long = [line for line in shown(topic, screen=Screen()).splitlines() if len(line) > 80]
    assert all(line.strip().count("=") >= 1 and (" " not in line.strip() or "'" in line) for line in long), long


def test_a_pipe_gets_a_line_for_each_setting() -> None:
    assert line_of("threads", shown()).endswith("(1 to 1024)")


def test_hydra_does_not_list_its_groups_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Hydra, "list_all_config_groups")
    assert line_of("lr", shown("lr"))


@pytest.mark.integration
def test_a_topic_is_all_that_concerns_it() -> None:
    page = shown("optimizer")
    assert "  optimizer=adam " in page
    assert "  optimizer.momentum=0.9" in page
    assert "hidden=" not in page
    assert line_of("optimizer.momentum", shown("optimizer.momentum"))
    assert "optimizer=adamw" not in shown("optimizer.momentum")


def test_values_are_those_of_what_was_typed_with_it() -> None:
    page = shown("data.name", "lr", "data=synthetic", "lr=0.5")
    assert line_of("data.name", page).split()[0] == "data.name=synthetic"
    assert line_of("lr", page).split()[0] == "lr=0.5"


@pytest.mark.parametrize(
    ("typed", "meant"), [("learning_rate", "lr"), ("optimizr", "optimizer"), ("launchr", "hydra.launcher.workers")]
)
def test_another_name_of_a_topic_leads_to_it(typed: str, meant: str) -> None:
    assert line_of(meant, shown(typed))


def test_an_unknown_topic_is_refused_with_those_that_there_are(command: Command) -> None:
    code, _, err = command("--help", "xyzzy")
    assert code == 2
    assert "There is no help about 'xyzzy'." in err
    assert "training" in err


def test_files_of_ones_own_are_there(tmp_path: Path) -> None:
    (tmp_path / "optimizer").mkdir()
    (tmp_path / "optimizer" / "mine.yaml").write_text("# My own.\n_target_: torch.optim.SGD\nlr: ${lr}\nwarm: 3  # how")
    page = shown("optimizer", "--config-dir", str(tmp_path))
    assert "\noptimizer=mine: My own.\n  optimizer.warm=3" in page
