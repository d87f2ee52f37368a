"""What is refused before Hydra writes anything."""

from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig
from samples import TINY

from mnist_exp.config import Config, loading
from mnist_exp.disk import ledger

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


def test_of_two_runs_in_one_folder_at_one_instant_the_refused_one_writes_nothing(
    command: Callable[..., tuple[int, str, str]],
) -> None:
    """All that the other has written so far is its lock."""
    Path("run").mkdir()
    with ledger.hold(Path("run")):
        code, _, err = command(*TINY, "hydra.run.dir=run/../run")
    assert code == 2
    assert "is being trained by" in err
    assert [*Path().rglob("*")] == [Path("run"), Path("run/.lock")]
    assert command(*TINY, "hydra.run.dir=run/../run")[0] == 0


def test_a_folder_where_the_log_should_be_is_a_sentence(command: Callable[..., tuple[int, str, str]]) -> None:
    Path("run/train.log").mkdir(parents=True)
    code, _, err = command(*TINY, "hydra.run.dir=run")
    assert code == 2
    assert "train.log cannot be used: Is a directory." in " ".join(err.split())


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
