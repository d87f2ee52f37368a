"""All options of conf/ compose and can be built, experiments are documented, and docs/add-a-model.md works."""

import re
import runpy
import shlex
import sys
from pathlib import Path

import hydra
import pandas as pd
import pytest
from trainings import run

from benchmarks import papers
from mnist_exp import config as configs
from mnist_exp.config import Config
from mnist_exp.errors import ConfigError
from mnist_exp.run import build

CONF = Path(configs.conf_dir())
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
MEASURED = pd.read_csv(papers.ROWS, dtype=str)
GUIDE = (CONF.parent / "docs" / "add-a-model.md").read_text()


def compose(*overrides: str) -> Config:
    configs.register()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return configs.parse(hydra.compose("train", list(overrides)))


def options(group: str) -> list[str]:
    return [f"{group}={path.stem}" for path in sorted((CONF / group).glob("*.yaml")) if path.stem != "custom"]


@pytest.mark.integration
@pytest.mark.parametrize(
    "choice", [c for group in ("model", "optimizer", "schedule", "augment", "data") for c in options(group)]
)
def test_every_choice_can_be_built(choice: str) -> None:
    assert build.rehearse(compose(choice, "data.mirrors=true")) > 9_000


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_says_command_figures_cost_and_source(name: str) -> None:
    text = (CONF / "experiment" / f"{name}.yaml").read_text()
    assert text.startswith("# @package _global_\n")
    header = re.findall(r"^# (Command|Paper|Expect|Cost|Source): +(\S.*)$", text, flags=re.MULTILINE)
    assert [key for key, _ in header] == ["Command", "Paper", "Expect", "Cost", "Source"]
    assert dict(header)["Command"] == f"python -m mnist_exp.train experiment={name}"


@pytest.mark.integration
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_can_be_built_and_trains_on_every_image(name: str) -> None:
    config = compose(f"experiment={name}")
    assert build.rehearse(config) > 0
    assert config.data.val_size == 0
    assert config.data.order_seed is None  # another seed changes the order of batches, too
    rows = MEASURED[MEASURED["experiment"] == name]
    assert set(rows["settings"]) <= {papers.digest(config)}, "run it again: its figures are of other settings"


@pytest.mark.integration
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_can_be_chosen_on_validation_and_on_other_data(name: str) -> None:
    config = compose(f"experiment={name}", "data=fashion_mnist", "data.val_size=10000", "epochs=1")
    assert (config.data.name, config.data.val_size, config.epochs) == ("fashion_mnist", 10_000, 1)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("mlp128", 101_770),
        ("lecun1998_300", 238_510),
        ("lecun1998_1000", 795_010),
        ("lecun1998_300_100", 266_610),
        ("lecun1998_500_150", 469_160),
        ("simard2003_mlp800_elastic", 636_010),
        ("simard2003_cnn", 132_540),
        ("srivastava2014_dropout", 1_863_690),
        ("ciresan2010_deep", 1_290_510),
        ("five_conv_cnn", 1_128_180),
        ("small_cnn", 215_194),
        ("strong_cnn", 210_354),
    ],
)
def test_networks_have_the_size_of_those_in_the_papers(name: str, parameters: int) -> None:
    assert build.rehearse(compose(f"experiment={name}")) == parameters


@pytest.mark.integration
def test_the_elastic_distortion_is_simards() -> None:
    config = compose("experiment=simard2003_mlp800_elastic")
    assert (config.augment["alpha"], config.augment["sigma"]) == (34.0, 4.0)


@pytest.mark.integration
def test_custom_asks_for_a_target() -> None:
    with pytest.raises(ConfigError, match=r"model\._target_ has no value"):
        compose("model=custom")


def commands() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", GUIDE, flags=re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def test_the_guide_has_files_and_commands() -> None:
    assert len(commands()) == 9
    assert len(re.findall(r"^`\S+`:$", GUIDE, flags=re.MULTILINE)) == 10


@pytest.mark.integration
@pytest.mark.parametrize("command", [c for c in commands() if c.startswith("python -m")])
def test_the_guides_commands_work(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the guide's files; synthetic images replace MNIST, and the first point replaces a sweep."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name, body in re.findall(r"^`(\S+)`:\n\n```\w+\n(.*?)```", GUIDE, flags=re.DOTALL | re.MULTILINE):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(body)
    argv = shlex.split(command)
    assert argv[:3] == ["python", "-m", "mnist_exp.train"]
    overrides = [w if "[" in w else w.split(",")[0] for w in argv[3:] if "=" in w]
    if "--config-dir" in argv:
        overrides.append(f"hydra.searchpath=[file://{tmp_path / argv[argv.index('--config-dir') + 1]}]")
    if "data=lines" in argv:
        runpy.run_path("make_lines.py")
    else:
        overrides += ["data=synthetic", "data.train_images=600"]
    config = compose(*overrides, "epochs=2", "tracking=off", "tracking.figures=false", "checkpoint.model=false")
    try:
        summary = run(config, tmp_path / "run").summary
    finally:
        for module in ("my_models", "my_parts"):
            sys.modules.pop(module, None)
    assert summary["final/train_accuracy"] > 0.3  # guessing has 0.1
