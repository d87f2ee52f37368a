"""A job: a point of a grid or a trial of a search, on its way from the sweeper over a launcher to a worker and back."""

import contextlib
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, final

import cloudpickle
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig

from mnist_exp.config import Config
from mnist_exp.config.overrides import key_of
from mnist_exp.errors import ExperimentError, first_line

ELSEWHERE = DictConfig({}, flags={"readonly": True})
"""The composed config of a job in any process but the one that runs it; one for all, of which there may be millions."""


class JobDied(RuntimeError):
    """A job's process ended without a result."""


@final
@dataclass(eq=False)
class Job:
    """One job and what is known of it."""

    number: int
    overrides: list[str]
    sweep: Path = Path()
    """The sweep's folder."""
    parsed: Config | None = None
    """Its config, checked; None for another application's job. It stays with the driver: the process that trains parses
    `composed`, where `${oc.env:NAME}` gets its value as late as that: `hydra.job.env_set` may set it, and no file of a
    scheduler has a password."""
    pack: str = ""
    """The pack that it began in, if an earlier attempt was interrupted."""
    subdir: str = ""
    """Its folder in the sweep's, if that is not its number."""
    composed: DictConfig = field(default_factory=lambda: ELSEWHERE)
    """The config as Hydra composed it; empty but in the process that runs it."""
    tries: int = 0
    deaths: int = 0
    """Times that its process died while it was in a pack."""
    outcome: bytes = b""
    """Its JobReturn, pickled."""

    @property
    def config(self) -> Config:
        """What it trains. Raises LookupError of another application's job, and in the process that runs it."""
        if self.parsed is None:
            raise LookupError(f"Job {self.number} has no config here.")
        return self.parsed

    @property
    def folder(self) -> Path:
        """Where it runs."""
        return self.sweep / (self.subdir or str(self.number))

    @property
    def settings(self) -> list[str]:
        """The overrides that say what it runs, not where."""
        return [o for o in self.overrides if not key_of(o).startswith(("hydra.", "hydra/")) and key_of(o) != "cluster"]

    def failed(self, error: BaseException) -> JobReturn:
        """What Hydra gets of a job that returned nothing itself."""
        returned = JobReturn(overrides=self.overrides, status=JobStatus.FAILED)
        returned.return_value = error
        return returned

    def died(self, reason: str) -> None:
        """Its process has died: its outcome and its ledger say why, also where it had not begun.

        The ledger does not where nothing can be written: a full disk ends no sweep.
        """
        self.outcome = cloudpickle.dumps(self.failed(JobDied(reason)))
        if self.parsed:
            from mnist_exp.run import claim  # torch

            with contextlib.suppress(OSError):
                claim.mark_killed(claim.Task(self.parsed, self.folder, self.settings), self.sweep.name, reason)


class Source(Protocol):
    """Jobs that are not known beforehand: those of a search, which depend on how others went."""

    @property
    def total(self) -> int:
        """How many there will be, by what is known now."""

    @property
    def coming(self) -> int:
        """How many of these are still to be given."""

    @property
    def fixed(self) -> set[str]:
        """The overrides that all of them share."""

    @property
    def batch(self) -> int | None:
        """As many a scheduler has at a time; None: as many as it has room for."""

    def next(self) -> list[Job]:
        """The next ones, which train together; none while there are none."""

    def end(self, number: int) -> None:
        """That job is over, for good; may be said twice."""


@final
class Returns(Sequence[JobReturn]):
    """The outcomes of jobs: what Hydra wants of a launcher, unpickled only where it is looked at."""

    def __init__(self, outcomes: Sequence[bytes]) -> None:
        self.outcomes = outcomes

    def __len__(self) -> int:
        return len(self.outcomes)

    def __getitem__(self, i: Any) -> Any:
        chosen = self.outcomes[i]
        return Returns(chosen) if isinstance(i, slice) else cloudpickle.loads(chosen)


def shared(points: Sequence[Sequence[str]]) -> set[str]:
    """The overrides that all of several *points* have."""
    return set.intersection(*map(set, points)) if len(points) > 1 else set()


def costs(jobs: Sequence[Job]) -> dict[int, float]:
    """About how long each of *jobs* trains, by its number; all the same for another application's."""
    if any(job.parsed is None for job in jobs):
        return {job.number: 1.0 for job in jobs}
    from mnist_exp.sweep import packing  # torch

    return dict(zip((job.number for job in jobs), packing.costs([job.config for job in jobs]), strict=True))


def died_of(exitcode: int | None) -> str:
    """How a process ended that left no result, in a sentence."""
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        guess = " (out of memory?)" if name == "SIGKILL" else ""
        return f"Its process was killed by {name}{guess}."
    return f"Its process ended with exit code {exitcode} and left no result."


def reason(error: BaseException) -> str:
    """Why a job failed, in one line."""
    text = first_line(error)
    return text if isinstance(error, (ExperimentError, JobDied)) else f"{type(error).__name__}: {text}"
