"""The quick way to compose a job gives what Hydra gives."""

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from mnist_exp import config
from mnist_exp.sweep.composing import Composer


@pytest.fixture
def composer() -> Composer:
    config.register()
    GlobalHydra.instance().clear()
    loader = ConfigLoaderImpl(config_search_path=create_config_search_path(config.conf_dir()))
    master = loader.load_configuration("train", ["hydra.mode=MULTIRUN"], run_mode=RunMode.MULTIRUN)
    return Composer(loader, master)


@pytest.mark.parametrize(
    "overrides",
    [
        ["hidden=64", "lr=1e-3"],
        ["hidden=[64,32]", "optimizer=sgd", "lr=0.5"],
        ["optimizer=adamw", "schedule=cosine", "schedule.warmup=0.1"],
        ["+tags.why=baseline", "hidden=32"],
        ["experiment=beginner", "seed=3"],
        ["name='a, b'", "hydra.sweep.subdir=7"],
        ["model.dropout=0.5", "data=synthetic", "data.train_images=100", "data.val_size=10"],
    ],
    ids=" ".join,
)
def test_a_job_is_composed_as_hydra_does(composer: Composer, overrides: list[str]) -> None:
    composer.job(["seed=9"])  # a base exists already
    ours = plain(composer.job(overrides))
    theirs = plain(composer.loader.load_sweep_config(composer.master, overrides))
    assert ours == theirs
    own = composer.own(overrides)
    assert "hydra" not in own
    assert plain(own) == {key: value for key, value in theirs.items() if key != "hydra"}


def plain(job: DictConfig) -> dict[object, object]:
    with_hydra = OmegaConf.to_container(job, resolve=False)
    assert isinstance(with_hydra, dict)
    return with_hydra
