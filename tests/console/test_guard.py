"""What is refused before Hydra writes anything."""

from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig
from samples import TINY

from mnist_exp.config import Config, loading

LATE = ["model.dropout=2", "device=cuda:99", "cluster=slurm", "optimizer.weight_decay=-1", "init=nowhere"]
"""What is known only after Hydra has made the folder."""


@pytest.mark.parametrize("wrong", ["hidden=-1", "epochs=0", "data.val_size=999", *LATE])
def test_a_refused_run_leaves_no_folder(wrong: str, command: Callable[..., tuple[int, str, str]]) -> None:
    code, _, err = command(*TINY, wrong)
    assert code == 2, err
    assert not list(Path().iterdir())


def test_a_refused_run_leaves_a_folder_that_was_there_as_it_was(command: Callable[..., tuple[int, str, str]]) -> None:
    Path("mine").mkdir()
    Path("mine/notes").touch()
    code, _, err = command(*TINY, LATE[0], "hydra.run.dir=mine")
    assert code == 2, err
    assert [*Path().rglob("*")] == [Path("mine"), Path("mine/notes")]


def test_a_refused_run_leaves_what_an_earlier_one_has_trained(command: Callable[..., tuple[int, str, str]]) -> None:
    assert command(*TINY, "hydra.run.dir=mine")[0] == 0
    before = sorted(Path("mine").rglob("*"))
    assert command(*TINY, LATE[0], "hydra.run.dir=mine")[0] == 2
    assert sorted(Path("mine").rglob("*")) == before


def test_a_setting_may_refer_to_what_the_run_puts_into_its_environment(
    command: Callable[..., tuple[int, str, str]],
) -> None:
    code, _, err = command(*TINY, "epochs=1", "+hydra.job.env_set.WHO=me", "name='${oc.env:WHO}'")
    assert code == 0, err


def test_a_single_run_has_its_config_parsed_once(
    command: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[DictConfig] = []
    typed = loading.typed

    def noted(cfg: DictConfig) -> Config:
        parsed.append(cfg)
        return typed(cfg)

    monkeypatch.setattr(loading, "typed", noted)
    for hidden in (8, 9):
        code, out, err = command(*TINY, "epochs=1", f"hidden={hidden}")
        assert code == 0, err
        assert out.startswith(f"hidden={hidden} ")
    assert len(parsed) == 2
