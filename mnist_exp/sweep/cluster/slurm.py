"""Sweeps as Slurm job arrays: submitit submits and runs the jobs, `driver.py` follows them.

What Hydra's own submitit launcher does not have: a killed job costs only itself, also where Slurm keeps no
accounts; a driver that goes away can come back; a job that has to leave its node stops after a batch, goes back into
the queue, and there goes on from its last epoch.
"""

import contextlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import cloudpickle
import submitit
from hydra.core.utils import JobReturn
from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf  # type: ignore[import-untyped]
from omegaconf import OmegaConf, open_dict

from mnist_exp.console.formats import plural
from mnist_exp.console.terminal import say
from mnist_exp.disk import ledger, trust
from mnist_exp.disk.files import read_json, write_json
from mnist_exp.disk.layout import SweepFolder
from mnist_exp.disk.records import fits
from mnist_exp.engine.events import Control, Observer
from mnist_exp.errors import ConfigError, ExperimentError, Interrupted
from mnist_exp.sweep.cluster.driver import Scheduler
from mnist_exp.sweep.job import Job, JobDied, died_of
from mnist_exp.sweep.launching import Handover
from mnist_exp.sweep.local.worker import Runner

LOOK = 10.0  # seconds between two questions to Slurm, which others want to use, too
LAG = 10.0  # seconds until a shared file system shows what another machine has written
GOING_ON = (
    *("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT"),
    *("RESIZING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT"),
)
# A job can be warned before it has loaded what listens, and SIGUSR2 would end it: the signal waits for `Notice`.
BLOCK = "from signal import *; pthread_sigmask(SIG_BLOCK, {SIGUSR2}); "
BLOCK += "import os, sys; os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
PYTHON = shlex.join([sys.executable, "-SEc", BLOCK])


@final
class Slurm(Scheduler):
    """The jobs of one sweep in Slurm's queue.

    Args:
        options: Those of `hydra.launcher`, as Hydra's submitit launcher names them.
        folder: The sweep's folder; its `slurm.json` notes which job has which Slurm id.

    Raises:
        ConfigError: this is no machine of a Slurm cluster, or it has no such option.
    """

    def __init__(self, options: dict[str, Any], folder: Path) -> None:
        if not shutil.which("sbatch"):
            raise ConfigError("There is no sbatch here.", "cluster=slurm is for the login node of a Slurm cluster.")
        self.options, self.note, self.own = options, SweepFolder(folder).jobs, trust.own(folder)
        self.jobs: dict[str, Job] = {}
        """Those that go on, by Slurm's ids."""
        self.gone: dict[str, tuple[float, str]] = {}
        """When Slurm was first seen without a job that has not written its result yet, and its last state."""
        self.next_look = 0.0

    def submit(self, jobs: Sequence[Job], handover: Handover) -> None:
        known = self.known()
        before = {known[number]: job for job in jobs if (number := str(job.number)) in known}
        queued = {name: before[name] for name, state in look(before).items() if name in before and state in GOING_ON}
        self.jobs |= queued
        new = [job for job in jobs if known.get(str(job.number)) not in queued]
        if queued:
            say(f"Slurm has {plural(len(queued), 'job')} already.")
        threads = self.options["cpus_per_task"] or 1
        for some in in_arrays(new):
            calls = [OnNode(handover.common, cloudpickle.dumps(handover.prepared(job)), threads) for job in some]
            try:
                submitted = self.executor().submit_array(calls)
            except (submitit.core.utils.FailedJobError, ValueError) as error:
                why = f"Slurm did not take the jobs: {refusal(error)}"
                if not self.jobs:
                    raise ConfigError(why, "Nothing runs. See hydra.launcher in docs/cluster.md.") from error
                raise ExperimentError(why, f"{len(self.jobs)} jobs before them go on. {self.stop()}") from error
            for job, handle in zip(some, submitted, strict=True):
                self.jobs[handle.job_id] = job
                known[str(job.number)] = handle.job_id
            write_json(self.note, known)
            say(f"Slurm takes {plural(len(some), 'job')} as {arrays(handle.job_id for handle in submitted)}.")

    def known(self) -> dict[str, str]:
        """Slurm's ids of the jobs that earlier drivers have submitted, by their numbers.

        The note of a foreign folder could name any job: of those only what Slurm has read from that folder counts.
        """
        try:
            known: dict[str, str] = read_json(self.note) if self.note.exists() else {}
            if not fits(known, dict[str, str]):
                raise ValueError("it is no table of ids")
        except (OSError, ValueError) as error:
            if not self.own:
                return {}
            way_out = "Delete it, once squeue shows no job of that sweep."
            raise ConfigError(f"{self.note} is damaged: {error}", way_out) from error
        if self.own:
            return known
        scripts, folder = look(known.values(), "%o"), self.note.parent.resolve()
        return {k: name for k, name in known.items() if Path(scripts.get(name, "")).is_relative_to(folder)}

    def executor(self) -> Any:
        """Submitit's, with our options, as Hydra's submitit launcher makes it."""
        shared = set(OmegaConf.structured(BaseQueueConf).keys())
        options = {key if key in shared else f"slurm_{key}": value for key, value in self.options.items()}
        folder, timeouts = options.pop("submitit_folder"), options.pop("slurm_max_num_timeout")
        fixed = {"slurm_max_num_timeout": timeouts, "slurm_python": PYTHON}
        executor = submitit.AutoExecutor(folder=folder, cluster="slurm", **fixed)
        executor.update_parameters(**options)
        return executor

    def ended(self) -> Iterable[tuple[Job, JobReturn | str]]:
        for name, job in list(self.jobs.items()):
            if self.handle(name).paths.result_pickle.exists():
                del self.jobs[name]
                yield job, self.result(name, job)
        if self.jobs and time.monotonic() > self.next_look:
            with contextlib.suppress(ExperimentError):  # it will be asked again
                states = look(self.jobs)
                gone = {name: state for name in self.jobs if (state := states.get(name, "")) not in GOING_ON}
                self.gone = {name: self.gone.get(name, (time.monotonic(), state)) for name, state in gone.items()}
            self.next_look = time.monotonic() + (1.0 if self.gone else LOOK)
        for name in [n for n, (since, _) in self.gone.items() if n in self.jobs and time.monotonic() > since + LAG]:
            yield self.jobs.pop(name), cause(name, self.gone.pop(name)[1])

    def handle(self, name: str) -> Any:
        """Submitit's view of a job."""
        return submitit.SlurmJob(folder=self.options["submitit_folder"], job_id=name)

    def result(self, name: str, job: Job) -> JobReturn | str:
        """What a job has left behind: a pickle, which could run anything if it came with a foreign folder."""
        if not self.own:
            entry = ledger.find(job.folder)
            return (entry.reason if entry else "") or "It left no result."
        try:
            done: JobReturn = self.handle(name).result()
        except submitit.core.utils.FailedJobError as error:  # outside of what Hydra and we catch
            raised = re.findall(r"^[\w.]+: .*", str(error), re.MULTILINE)
            return job.failed(JobDied(raised[-1] if raised else "It failed in submitit."))
        return done

    def stop(self) -> str:
        return f"Cancel them: scancel {arrays(self.jobs)}"

    def close(self) -> None:
        """Jobs go on by themselves."""


@final
@dataclass(frozen=True)
class OnNode:
    """What a node runs: one job of the sweep. Submitit keeps it in a file, and reads it again after a requeue."""

    common: bytes
    """See `Handover`."""
    job: bytes
    """See `Handover.prepared`."""
    threads: int

    def __call__(self) -> JobReturn:
        notice = Notice()
        runner = Runner(self.common, self.threads, notice.watch)
        job: Job = cloudpickle.loads(self.job)
        with open_dict(job.composed):
            job.composed.hydra.job.id = submitit.JobEnvironment().job_id
        returned = runner.run_one(job)
        if notice.given and isinstance(returned._return_value, Interrupted):
            notice.leave()
        return returned

    def checkpoint(self) -> Any:
        """What runs after a requeue: the same, since the run's folder has how far it came."""
        return submitit.helpers.DelayedSubmission(self)


@final
class Notice:
    """Slurm's notice that a job has to leave its node soon (its time is up, or it makes room): SIGUSR2.

    SIGTERM is ambiguous: it comes before preemption, too, and a job that ended then would not be requeued. So it is
    passed over; SIGKILL follows, and costs no more than the epoch at hand. Submitit would do so with a line in the log,
    but Slurm sends it several times in a moment, and a handler that is interrupted by itself may break what it calls.
    """

    def __init__(self) -> None:
        self.given, self.control, self.number = False, Control(), signal.Signals["SIGUSR2"]
        self.requeue: Any = signal.signal(self.number, self.on_notice)  # was submitit's
        signal.signal(signal.SIGTERM, self.ignore)
        if sys.platform != "win32":  # no node of Slurm is: for mypy
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {self.number})

    def on_notice(self, number: int, frame: Any) -> None:
        self.given, self.control.signal = True, number

    def ignore(self, number: int, frame: Any) -> None:
        """Unlike SIG_IGN, this is not handed on to child processes."""

    def watch(self, job: Job, about: Any, control: Control) -> Sequence[Observer]:
        """The run is about to train: *control* can stop it."""
        signal.signal(signal.SIGTERM, self.ignore)
        self.control = control
        if self.given:
            control.signal = self.number
        return []

    def leave(self) -> None:
        """Puts the job back into Slurm's queue and ends this process, which leaves no result.

        Raises:
            submitit.core.utils.UncompletedJobError: it was requeued often enough (`max_num_timeout`).
        """
        self.requeue(self.number, None)


def in_arrays(jobs: Sequence[Job]) -> Iterable[Sequence[Job]]:
    """*jobs* in as few arrays as Slurm allows."""
    if not jobs:
        return
    shown = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True, check=False).stdout
    lines = (line.split("=") for line in shown.splitlines())
    largest = next((int(rest[0]) for key, *rest in lines if key.strip() == "MaxArraySize"), 1001)
    for first in range(0, len(jobs), largest):
        yield jobs[first : first + largest]


def look(names: Iterable[str], what: str = "%T") -> dict[str, str]:
    """The states of those jobs that Slurm remembers, from the memory of its controller: that needs no accounts.

    It can be asked for something else: *what*, as squeue's `--format` has it.

    Raises:
        ExperimentError: the controller cannot be reached.
    """
    names = list(names)
    if not names:
        return {}
    command = ["squeue", "--noheader", "--array", "--states=all", f"--jobs={arrays(names, ',')}", f"--format=%i|{what}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and "Invalid job id" not in done.stderr:
        raise ExperimentError(f"Slurm does not answer: {done.stderr.strip()}", "Try again later: resume=last.")
    return {name: text for name, _, text in (line.strip().partition("|") for line in done.stdout.splitlines())}


def arrays(names: Iterable[str], between: str = " ") -> str:
    """The arrays that those jobs are of: `17_0`, `17_1` and `18` are 17 and 18."""
    return between.join(dict.fromkeys(name.partition("_")[0] for name in names))


def cause(name: str, state: str) -> str:
    """Why a job ended without a result."""
    sentences = {
        "OUT_OF_MEMORY": "It ran out of memory (hydra.launcher.mem_gb).",
        "TIMEOUT": "Slurm's time limit ended it (hydra.launcher.timeout_min).",
        "CANCELLED": "It was cancelled in Slurm.",
        "NODE_FAIL": "Its node failed.",
        "PREEMPTED": "Slurm gave its place to another job.",
    }
    if state in sentences:
        return sentences[state]
    shown = subprocess.run(["scontrol", "--oneliner", "show", "job", name], capture_output=True, text=True, check=False)
    fields = dict(field.partition("=")[::2] for field in shown.stdout.split())
    code, _, killed_by = fields.get("ExitCode", "").partition(":")
    if killed_by not in ("", "0"):
        return died_of(-int(killed_by))
    if code.isdecimal() and int(code):
        return died_of(128 - int(code) if int(code) > 128 else int(code))  # a shell's 137: killed by 9
    return f"It ended without a result; Slurm says {state or 'nothing of it'}."


def refusal(error: Exception) -> str:
    """The first thing that sbatch complains of."""
    lines = str(error).splitlines()
    return next((line.partition("error: ")[2] for line in lines if "sbatch: error: " in line), lines[0])
