"""An error about what a file sets names the file, the line and the way out."""

import re
from pathlib import Path

import pytest
import yaml

from mnist_exp import config
from mnist_exp.config import choices, chosen
from mnist_exp.errors import ConfigError

LOCATED = {
    "hidden: -5": (2, "hidden must be a positive integer"),
    "lr: fast": (2, "lr must be a number"),
    "epochs: 1.5": (2, "epochs must be a whole number"),
    "epochs: null": (2, "epochs must have a value"),
    "hidden: ${width}": (2, "hidden refers to ${width}"),
    "lr: ${": (2, "lr has a reference that is not whole"),
    "optimizer:\n  lr: 0.3": (3, "optimizer.lr follows lr="),
    "data:\n  classes: a": (3, "data.classes must be a list."),
    "data:\n  vall: 3": (3, "There is no setting 'data.vall'."),
    "hydra: {launcher: {workers: [1]}}": (2, "hydra.launcher.workers must be a whole number"),
    "hydra: {job: {chdir: maybe}}": (2, "hydra.job.chdir must be true or false"),
    "defaults: [base]": (3, "seed must be between"),
}
"""What a file has below its first line: the line that is named, and what is wrong there."""
OVERRIDE = "- override /optimizer: sgd"
FAULTS = {
    "tracking: off": (2, "tracking is chosen in the list of defaults.", "- override /tracking: 'off'"),
    "model: mlp": (2, "model is chosen in the list of defaults.", "- override /model: mlp"),
    "optimizer: 3": (2, "optimizer is chosen in the list of defaults.", "- override /optimizer: …"),
    "data: null": (2, "data is chosen in the list of defaults.", "- override /data: …"),
    "experiment: mlp128": (2, "experiment is chosen in the list of defaults.", "- mlp128"),
    "hydra: {run: x}": (2, "hydra.run holds names with values, but got x.", "such as dir: …"),
    "hydra:\n  sweeper:\n    params: [hidden]": (4, "hydra.sweeper.params holds names", "such as hidden: …"),
    "hydra: {launcher: joblib}": (2, "hydra.launcher holds names", "- override /hydra/launcher: joblib"),
    "hydra/launcher: joblib": (2, "hydra/launcher is chosen in the list", "- override /hydra/launcher: joblib"),
    "training: 3": (2, "training holds names with values, but got 3.", "such as label_smoothing: …"),
    "data:\n  sha256: [a]": (3, "data.sha256 holds names with values", "drop it"),
    "optimizer.momentum: 0.8": (2, "optimizer.momentum has a dot", "optimizer:\n  momentum: 0.8"),
    "model.hidden: 8": (2, "model.hidden has a dot", "Write\nhidden: 8"),
    "override /optimizer: sgd": (2, "override /optimizer belongs in the list", OVERRIDE),
    "- optimizer": (2, "it holds no names with values.", "hidden: 64"),
    "defaults: sgd": (2, "defaults is no list.", OVERRIDE),
    "defaults: [optimizer: sgd]": (2, "optimizer is chosen already", OVERRIDE),
    "defaults:\n  - /optimizer: sgd": (3, "optimizer is chosen already", OVERRIDE),
    "defaults:\n  - override optimizer: sgd": (3, "optimizer is chosen already", OVERRIDE),
    "defaults:\n  - override /optimizer: sdg": (3, "there is no optimizer called 'sdg'.", OVERRIDE),
    "defaults:\n  - override /optimizer:": (3, "optimizer takes the name of an option", "- override /optimizer: …"),
    "defaults:\n  - override /hidden: 5": (3, "hidden has no options.", "hidden: 5"),
    "defaults:\n  - override /optimizer=sgd": (3, "is no item of a list of defaults.", OVERRIDE),
    "defaults:\n  - hydra/launcher: joblib": (
        3,
        "hydra/launcher is chosen already",
        "- override /hydra/launcher: joblib",
    ),
    "defaults:\n  - sgd": (3, "there is no experiment called 'sgd'.", OVERRIDE),
    "defaults:\n  - mlp129": (3, "there is no experiment called 'mlp129'.", "Write - mlp128"),
    "defaults:\n  - mine": (3, "the file begins with itself.", "Drop that line"),
    "defaults:\n  - experiment: mlp128": (3, "by its name alone.", "Write - mlp128"),
    "defaults:\n  - override /optimizer: sgd\n  - mlp128": (4, "comes last in the list", "Move this line up."),
    "defaults:\n  - _self_\n  - _self_": (4, "_self_ is there twice.", "Drop this line."),
}
"""As above, and the way out."""


def composed(text: str, *typed: str) -> ConfigError:
    """The error for an experiment with *text* below its first line."""
    folder = Path("mine/experiment")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "base.yaml").write_text("# @package _global_\n\nseed: -1\n")
    (folder / "mine.yaml").write_text(f"# @package _global_\n{text}\n")
    with pytest.raises(ConfigError) as caught:
        config.compose([f"hydra.searchpath=[file://{Path('mine').resolve()}]", "experiment=mine", *typed])
    return caught.value


@pytest.mark.integration
@pytest.mark.parametrize("text", LOCATED)
def test_a_value_of_a_file_is_found_there(text: str) -> None:
    line, message = LOCATED[text]
    name = "base" if "base" in text else "mine"
    assert composed(text).message.startswith(f"mine/experiment/{name}.yaml, line {line}: {message}")


@pytest.mark.integration
@pytest.mark.parametrize("text", FAULTS)
def test_what_hydra_does_not_take_in_a_file_is_found_there(text: str) -> None:
    line, message, way_out = FAULTS[text]
    error = composed(text)
    assert error.message.startswith(f"mine/experiment/mine.yaml, line {line}: ")
    assert message in error.message
    assert way_out in error.help


@pytest.mark.integration
@pytest.mark.parametrize("option", ["_target_: torch.optim.SGD", "# @package _global_\noptimizer: {}", "lr: ???"])
def test_an_option_that_leaves_out_what_it_decides_is_named(option: str) -> None:
    Path("mine/optimizer").mkdir(parents=True)
    Path("mine/optimizer/plain.yaml").write_text(f"{option}\n")
    error = composed("seed: 1", "optimizer=plain")
    assert re.match(r"mine/optimizer/plain.yaml, line \d: lr has no value.", error.message)
    assert "# @package _global_\nlr: …\noptimizer:" in error.help
    assert composed("seed: 1", "optimizer=plain", "lr=???").message == "lr has no value."


@pytest.mark.integration
@pytest.mark.parametrize("text", ["hidden: 16,32", "seed: range(3)", "lr: tag(log,interval(1e-4,1e-1))"])
def test_values_to_try_belong_to_the_sweeper(text: str) -> None:
    error = composed(text)
    assert error.message.startswith("mine/experiment/mine.yaml, line 2: ")
    assert error.help == f"To try several, with -m, write\nhydra:\n  sweeper:\n    params:\n      {text}"


@pytest.mark.integration
def test_what_was_typed_is_not_of_the_file() -> None:
    assert composed("hidden: 8", "hidden=-5").message.startswith("hidden must be")


def test_a_file_of_an_option_is_found_in_the_folder_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("c/data").mkdir(parents=True)
    Path("c/data/mine.yaml").write_text("name: x\nval_size: -3\n")
    error = ConfigError("data.val_size must be at least 0.", "Try 0.")
    for option in (["--config-dir", "c"], ["--config-dir=c"], ["-cd", "c"]):
        monkeypatch.setattr("sys.argv", ["train", *option, "data=mine"])
        assert chosen.located(error, ["data=mine"]).message.startswith("c/data/mine.yaml, line 2: data.val_size")


def test_an_option_that_refuses_a_keyword_that_was_typed_is_not_named() -> None:
    error = ConfigError("optimizer._target_=torch.optim.SGD refused its settings.")
    assert chosen.located(error, ["optimizer=sgd", "optimizer.momentum=-1"]) is error


@pytest.mark.parametrize("group", choices.groups())
def test_our_own_files_have_no_faults(group: str) -> None:
    assert chosen.fault([f"{group}={option}" for option in choices.options(group)]) is None


def test_a_name_that_no_file_system_takes_is_no_file() -> None:
    assert chosen.fault([f"data={'x' * 5000}", "experiment=[a"]) is None


def test_each_advice_is_yaml() -> None:
    for _, _, way_out in FAULTS.values():
        if way_out.startswith("- "):
            assert yaml.safe_load(way_out)
