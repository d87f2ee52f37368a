"""Sweeps as tasks of a Ray cluster: Ray finds a machine for each job, `driver.py` follows them.

Straight on Ray's own interface: Hydra's Ray launcher (1.2.2) needs a cloudpickle of before 2024, cannot join a
cluster without a work-around, and gives up the whole sweep when one job has died four times.
"""

import os
import platform
import socket
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, final

# Read when ray is imported.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
if (Path.home() / ".ray" / "auth_token").exists():
    os.environ.setdefault("RAY_AUTH_MODE", "token")  # `ray start` expects it, but does not pass it to the driver

import cloudpickle
from hydra.core.utils import JobReturn

from mnist_exp import system
from mnist_exp.config.explain import extra_missing
from mnist_exp.config.rules import at_least, check_options
from mnist_exp.errors import ConfigError, ExperimentError, first_line
from mnist_exp.sweep.cluster.driver import PAUSE, Scheduler
from mnist_exp.sweep.job import Job
from mnist_exp.sweep.launching import Handover
from mnist_exp.sweep.local.worker import Runner

try:
    import ray
except ImportError as error:
    raise extra_missing("ray") from error

RULES = {"cpus_per_job": at_least(1), "retries": at_least(0), "gpus_per_job": at_least(0)}


@final
class Ray(Scheduler):
    """The jobs of one sweep on a Ray cluster, which *options* (`conf/cluster/ray.yaml`) name, or which is started here.

    Raises:
        ConfigError: an option is out of range, or the cluster cannot be reached.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        check(options)
        self.options, self.retries = options, options["retries"]
        self.jobs: dict[Any, Job] = {}
        """Those that go on, by Ray's references to what they will return."""
        address = options["address"]
        listening(address)
        here = {} if address else {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
        # Where workers find the package when it is not installed: they are on the same file system.
        try:
            ray.init(
                address=address or "local",
                runtime_env={"env_vars": {"PYTHONPATH": system.python_path(), **dict(options["env"])}},
                log_to_driver=False,
                configure_logging=False,
                **here,
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise unreachable(address, error) from error

    @property
    def room(self) -> int:
        """As many as the cluster has processors and GPUs for."""
        has, gpus = ray.cluster_resources(), self.options["gpus_per_job"] or 0
        needs = {"CPU": self.options["cpus_per_job"], "GPU": gpus}
        return max(1, min(int(has.get(kind, 0) // number) for kind, number in needs.items() if number))

    def submit(self, jobs: Sequence[Job], handover: Handover) -> None:
        common = ray.put(handover.common)
        cpus = self.options["cpus_per_job"]
        task = ray.remote(num_cpus=cpus, num_gpus=self.options["gpus_per_job"] or 0, max_retries=0)(on_worker)
        for job in jobs:
            packed = cloudpickle.dumps(handover.prepared(job))
            self.jobs[task.remote(common, packed, cpus, str(Path.cwd()))] = job

    def pause(self) -> None:
        ray.wait(list(self.jobs), timeout=PAUSE)

    def ended(self) -> Iterable[tuple[Job, JobReturn | str]]:
        ready, _ = ray.wait(list(self.jobs), num_returns=len(self.jobs), timeout=0) if self.jobs else ([], [])
        for reference in ready:
            job = self.jobs.pop(reference)
            try:
                yield job, cloudpickle.loads(ray.get(reference))
            except ray.exceptions.RayTaskError as error:  # outside of what Hydra and we catch; or cancelled as it began
                own = isinstance(error.cause, ray.exceptions.RayError)
                yield job, cause(error.cause) if own else job.failed(error.cause)
            except ray.exceptions.RayError as error:
                yield job, cause(error)

    def stop(self) -> str:
        for reference in self.jobs:
            ray.cancel(reference)  # a Ctrl-C for the one that runs it
        return ""

    def close(self) -> None:
        ray.shutdown()


def check(options: dict[str, Any]) -> None:
    """Raises ConfigError if one of the launcher's options is out of its range."""
    check_options("hydra.launcher", options, RULES)
    if (gpus := options["gpus_per_job"] or 0) > 1 and gpus % 1:
        reason = f"hydra.launcher.gpus_per_job must be a share of one GPU, or a whole number, but got {gpus}."
        raise ConfigError(reason, f"Try hydra.launcher.gpus_per_job={int(gpus)}.")


def listening(address: str | None) -> None:
    """Raises ConfigError if nothing listens at *address* (`host:port`): ray.init would try for minutes."""
    host, _, port = (address or "").rpartition(":")
    if port.isdecimal() and "/" not in host:
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except OSError as error:
            raise unreachable(address, error) from error


def unreachable(address: str | None, error: Exception) -> ConfigError:
    """The sentence for a cluster that does not answer."""
    where = address or "this machine"
    return ConfigError(f"Ray cannot be reached at {where}: {first_line(error)}", "Is it running? ray status")


def on_worker(common: bytes, packed: bytes, threads: int, here: str) -> bytes:
    """What a worker process of Ray runs: one job of the sweep, whose JobReturn it returns pickled."""
    job: Job = cloudpickle.loads(packed)
    if not job.sweep.is_dir():
        host = platform.node()
        raise ExperimentError(f"{host} does not see {job.sweep}: the machines must share a file system.")
    os.chdir(here)
    return bytes(cloudpickle.dumps(Runner(common, threads).run([job])[0]))


def cause(error: Exception) -> str:
    """Why a job ended without a result."""
    if isinstance(error, ray.exceptions.OutOfMemoryError):
        return "Ray ended it: its machine was out of memory."
    if isinstance(error, ray.exceptions.NodeDiedError):
        return "Its machine left the cluster."
    if isinstance(error, ray.exceptions.TaskCancelledError):
        return "It was not started: the sweep stopped before."
    return "Its process died (out of memory?)."
