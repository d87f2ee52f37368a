"""The quick way to compose a job gives what Hydra gives."""

import inspect
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cloudpickle
import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from mnist_exp import config, train
from mnist_exp.sweep.composing import Composer
from mnist_exp.sweep.job import Job
from mnist_exp.sweep.launching import Handover


@pytest.fixture
def composer() -> Composer:
    config.register()
    GlobalHydra.instance().clear()
    loader = ConfigLoaderImpl(config_search_path=create_config_search_path(config.conf_dir()))
    master = loader.load_configuration("train", ["hydra.mode=MULTIRUN"], run_mode=RunMode.MULTIRUN)
    return Composer(loader, master)


@pytest.mark.integration
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


def test_jobs_that_train_carry_no_task_function_and_those_of_another_application_carry_theirs(
    composer: Composer,
) -> None:
    launcher: Any = SimpleNamespace(
        config=composer.master,
        hydra_context=SimpleNamespace(config_loader=composer.loader),
        task_function=inspect.unwrap(train.main),
    )
    ours, theirs = Job(3, ["hidden=16", "hydra.sweep.dir=here"]), Job(4, ["hidden=16", "hydra.sweep.subdir=x"])
    handover = Handover(launcher, [ours])
    assert handover.trains
    assert (ours.config.hidden, ours.folder) == (16, Path("here/3"))
    assert cloudpickle.loads(handover.common)[1] is None
    prepared = handover.prepared(ours)
    assert (prepared.parsed, prepared.composed.hydra.job.num, prepared.composed.hydra.job.id) == (None, 3, "train_3")
    launcher.task_function = abs
    handover = Handover(launcher, [theirs])
    assert not handover.trains
    assert theirs.parsed is None
    with pytest.raises(LookupError, match="Job 4 has no config"):
        theirs.config  # noqa: B018  # a property that raises
    assert theirs.subdir == "x"
    assert cloudpickle.loads(handover.common)[1] is abs
