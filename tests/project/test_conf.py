"""Every file of `conf/` composes, can be trained and is documented."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from mnist_exp import config as configs
from mnist_exp.config import Config, schema
from mnist_exp.run import build

CONF = Path(configs.conf_dir())
# Without groups that configure Hydra: its own, and `search`, `pruner` and `cluster`, which choose sweeper and launcher.
CHOICES = [
    path.relative_to(CONF).with_suffix("").as_posix()
    for path in sorted(CONF.glob("*/*.yaml"))
    if path.parent.name not in ("hydra", "search", "pruner", "cluster")
]
EXPERIMENTS = sorted(CONF.glob("experiment/*.yaml"))


def test_there_is_something_to_check() -> None:
    assert {"model/mlp", "optimizer/adam", "data/mnist", "experiment/beginner"} <= set(CHOICES)


# Overrides that a file's header asks for.
COMPLETED = {
    "model/custom": ["model._target_=mnist_exp.models.MLP", "+model.hidden=${hidden}"],
    "augment/mirror": ["data=cifar10"],  # whose mirror images show the same
}


@pytest.mark.integration
@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_composes_and_could_be_trained(choice: str, composed: Callable[..., Config]) -> None:
    group, option = choice.split("/")
    config = composed(f"{group}={option}", "device=cpu", *COMPLETED.get(choice, []))
    assert build.rehearse(config) > 7_000  # parameters


def test_the_defaults_are_the_beginners_network(composed: Callable[..., Config]) -> None:
    config = composed()
    assert (config.hidden, config.lr, config.epochs, config.batch_size) == (128, 1e-3, 10, 64)
    assert config.optimizer["_target_"] == "torch.optim.Adam"
    assert config.data.name == "mnist"
    assert config.data.val_size == 5_000


def test_what_the_primary_config_shows_are_the_defaults_of_the_schema() -> None:
    shown = OmegaConf.to_container(OmegaConf.load(CONF / "train.yaml"))
    assert isinstance(shown, dict)
    shown = {str(key): value for key, value in shown.items() if key not in ("defaults", "hydra")}
    defaults = {key: getattr(setting.default, "value", setting.default) for key, setting in schema.settings().items()}
    assert shown == {key: defaults[key] for key in shown}
    assert len(shown) > 3


@pytest.mark.integration
@pytest.mark.parametrize(("optimizer", "lr"), [("adam", 1e-3), ("adamw", 1e-3), ("sgd", 0.1)])
def test_each_optimizer_brings_its_learning_rate(optimizer: str, lr: float, composed: Callable[..., Config]) -> None:
    assert composed(f"optimizer={optimizer}").lr == lr
    assert composed(f"optimizer={optimizer}", "lr=0.5").lr == 0.5
    assert composed("lr=0.5", f"optimizer={optimizer}").optimizer["lr"] == 0.5


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_an_experiment_is_a_lab_record(path: Path) -> None:
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    said = dict(re.findall(r"# (Command|Expect|Cost|Source): +(\S.*)", "\n".join(header)))
    assert set(said) == {"Command", "Expect", "Cost", "Source"}
    assert f"experiment={path.stem}" in said["Command"]


@pytest.mark.parametrize("path", sorted(CONF.glob("data/*.yaml")), ids=lambda path: path.stem)
def test_a_published_dataset_says_its_licence_and_what_a_default_network_reaches(path: Path) -> None:
    head = " ".join(line.removeprefix("# ") for line in path.read_text().splitlines() if line.startswith("#"))
    if "\nsource: " in path.read_text():
        assert re.search(r"Licence: \w", head)
        assert re.search(r"The default network reaches [\d.]+ ± [\d.]+ %|Not run here: ", head)


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda path: path.relative_to(CONF).as_posix())
def test_every_file_says_what_it_is(path: Path) -> None:
    first = next(line for line in path.read_text().splitlines() if not line.startswith("# @package"))
    assert re.match(r"# \S+", first)


def test_a_choice_is_described_by_its_schema(composed: Callable[..., Config]) -> None:
    """A written config is read as the same config."""
    config = composed("data=fashion_mnist", "hidden=[32,16]", "precision=bf16", "+tags.why=baseline")
    path = Path("config.yaml")
    path.write_text(configs.to_yaml(config))
    assert configs.load(path) == config
