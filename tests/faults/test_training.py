"""Jobs that fail in different ways: a failure ends its own run only."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from kit import OFF, QUIET, command, only_sweep, runs, states, whole

from mnist_exp.disk import ledger

Injected = Callable[..., None]
MODES = ["fine", "raise", "exit", "sigkill", "diverge", "memory", "fine_2"]
OWN = ["model=custom", "model._target_=faulty.Faulty", "data=synthetic", "epochs=2", "threads=1"]


def reason_of(number: int) -> str:
    return ledger.read(only_sweep() / str(number)).reason


@pytest.mark.faults(24)
def test_bad_jobs_cost_only_themselves(injected: Injected) -> None:
    """One sweep for the faults 23, 24 and 25, because its start takes longer than its jobs."""
    code, out, err = command("-m", *OWN, f"+model.mode={','.join(MODES)}", OFF, QUIET)
    assert code == 1
    assert states() == ["finished", "failed", "failed", "killed", "failed", "failed", "finished"]
    assert "5 of 7 runs did not finish" in err
    assert err.count("    again: python -m mnist_exp.train ") == 5
    assert err.count("train.log") == 5
    reasons = ["RuntimeError: boom", "SystemExit: 3", "killed by SIGKILL (out of memory?)", "The loss is not finite"]
    for number, reason in enumerate([*reasons, "memory"], start=1):
        assert reason in reason_of(number), reason_of(number)
        assert reason_of(number).splitlines()[0] in err
    for folder in runs():
        whole(folder)
    assert re.search(" (is|did) best: validation accuracy ", out)
    assert re.search(r"7 runs \([^)]*\b2 finished", out)
    injected(2)


@pytest.mark.faults(23)
def test_a_loss_that_is_not_finite_ends_its_own_run(injected: Injected) -> None:
    code, _, err = command(*OWN, "+model.mode=diverge", OFF)
    assert code == 1
    assert "The loss is not finite somewhere in steps" in err
    (folder,) = runs()
    assert ledger.read(folder).state == "failed"
    assert "NaN" not in (folder / "metrics.jsonl").read_text()
    assert not (folder / "weights.safetensors").exists()
    injected()


@pytest.mark.faults(25)
def test_a_job_that_is_out_of_memory_says_so(injected: Injected) -> None:
    code, _, err = command(*OWN, "+model.mode=memory", OFF)
    assert code == 1
    assert "can't allocate memory" in err
    (folder,) = runs()
    assert ledger.read(folder).state == "failed"
    assert Path(folder / "config.yaml").exists()
    injected()
