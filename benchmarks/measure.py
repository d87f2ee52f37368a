"""Fair timing: contenders take turns (A B A B ...), so that a slow minute of the machine slows all of them.

Results are the median with the extremes, and ratios. A ratio compares two times of the same round only.
"""

import contextlib
import ctypes
import dataclasses
import datetime
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, final

import psutil

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("torch", "torchvision", "lightning", "torchmetrics", "hydra-core", "joblib", "mlflow", "numpy")

SUBREAPER = 36  # prctl's number for: processes below this one become its children when their parents end

Contender = Callable[[], float]
"""Does its work once and returns its cost, usually in seconds."""


@final
@dataclass(frozen=True)
class Spread:
    """Some measurements of one quantity."""

    values: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        return min(self.values)

    @property
    def high(self) -> float:
        return max(self.values)


@final
@dataclass(frozen=True)
class Case:
    """One row of a benchmark: the cost of each contender, and ratios of costs."""

    label: str
    costs: dict[str, Spread]
    ratios: dict[str, Spread] = field(default_factory=dict)
    """By `a / b`, one value for each round."""


@final
@dataclass(frozen=True)
class Benchmark:
    """The results of one benchmark."""

    name: str
    title: str
    unit: str
    """Of the costs: `s`, `us`, `MiB` or `%`."""
    cases: list[Case]
    notes: list[str] = field(default_factory=list)
    """What a reader must know to interpret the numbers."""

    def to_json(self) -> dict[str, Any]:
        """Plain data, with the machine of the measurement."""
        return {"environment": environment(), **dataclasses.asdict(self)}


def from_json(plain: dict[str, Any]) -> Benchmark:
    """The inverse of `Benchmark.to_json`, without the environment."""
    cases = [
        Case(
            case["label"],
            {name: Spread(**spread) for name, spread in case["costs"].items()},
            {name: Spread(**spread) for name, spread in case["ratios"].items()},
        )
        for case in plain["cases"]
    ]
    return Benchmark(plain["name"], plain["title"], plain["unit"], cases, plain["notes"])


def compare(
    label: str,
    contenders: dict[str, Contender],
    repeats: int,
    ratios: Sequence[tuple[str, str]] = (),
    warmup: int = 1,
    factor: float = 1.0,
) -> Case:
    """Lets *contenders* take turns for *warmup* uncounted rounds and *repeats* counted ones.

    Args:
        ratios: Pairs of names (a, b) for `a / b`; pairs with an absent contender are skipped.
        factor: Multiplies all costs: 1e6 converts seconds to microseconds.
    """
    costs: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(warmup + repeats):
        for name, contender in contenders.items():
            cost = contender()
            if turn >= warmup:
                costs[name].append(factor * cost)
    spreads = {
        f"{a} / {b}": Spread([x / y for x, y in zip(costs[a], costs[b], strict=True)])
        for a, b in ratios
        if a in costs and b in costs
    }
    return Case(label, {name: Spread(values) for name, values in costs.items()}, spreads)


def per_call(work: Callable[[], object], calls: int, done: Callable[[], object] | None = None) -> Contender:
    """A contender that makes *calls* calls of *work* and returns the seconds of one call.

    Args:
        done: Waits for a device to finish; None: *work* is synchronous.
    """

    def timed() -> float:
        began = time.perf_counter()
        for _ in range(calls):
            work()
        if done:
            done()
        return (time.perf_counter() - began) / calls

    return timed


@final
@dataclass(frozen=True)
class Finished:
    """A command that succeeded."""

    seconds: float
    first_line: float
    """Seconds until its first line of output."""
    peak: float
    """Peak memory of it and its children together, in MiB; 0 unless it was watched."""
    started_ms: int
    """Wall clock in milliseconds since 1970."""


def command(arguments: Sequence[str], folder: Path, watch_memory: bool = False) -> Finished:
    """Runs `python *arguments*` in *folder*, as a user would.

    Args:
        watch_memory: Samples the memory of its processes every 20 ms, which costs a little time.

    Raises:
        RuntimeError: it failed; the message has the end of its output.
    """
    started_ms, began = time.time_ns() // 1_000_000, time.perf_counter()
    with (
        subprocess.Popen(
            [sys.executable, *arguments],
            cwd=folder,
            env=variables(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process,
        _peak(process.pid) if watch_memory else contextlib.nullcontext([0.0]) as peak,
    ):
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        first_line = time.perf_counter() - began
        lines += process.stdout.readlines()
        code = process.wait()
    seconds = time.perf_counter() - began
    if code:
        raise RuntimeError(f"python {' '.join(arguments)} ended with {code}:\n{''.join(lines[-15:])}")
    return Finished(seconds, first_line, peak[0], started_ms)


def processor_seconds(arguments: Sequence[str], folder: Path, environ: Mapping[str, str]) -> float:
    """User and system time of `python *arguments*` in *folder* and of what it has started, with *environ* added.

    A driver does not wait for the fork server of its workers. On Linux this process takes it over and counts them all.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SUBREAPER, 1)
    before, own = os.times(), psutil.Process().children()
    command = [sys.executable, *arguments]
    subprocess.run(command, cwd=folder, env={**variables(), **environ}, check=True, capture_output=True)
    for left in set(psutil.Process().children()).difference(own):
        with contextlib.suppress(ChildProcessError):
            os.waitpid(left.pid, 0)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def variables() -> dict[str, str]:
    """The environment of a command, as a user has it."""
    drop = ("MLFLOW_TRACKING_URI", "PYTHONDONTWRITEBYTECODE")  # compiled modules are what users run
    kept = {key: value for key, value in os.environ.items() if key not in drop}
    return kept | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


@contextlib.contextmanager
def _peak(pid: int) -> Iterator[list[float]]:
    """Yields a list: its only item is the peak memory so far of process *pid* and its descendants, in MiB."""
    peak, done = [0.0], threading.Event()

    def look() -> None:
        while not done.wait(0.02):
            with contextlib.suppress(psutil.Error):
                top = psutil.Process(pid)
                peak[0] = max(peak[0], sum(_memory(p) for p in [top, *top.children(recursive=True)]))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def _memory(process: psutil.Process) -> float:
    """MiB of *process*; where the system reports PSS, shared pages are divided among their processes."""
    try:
        full = process.memory_full_info()
    except psutil.Error:
        return 0.0
    return float(getattr(full, "pss", full.rss)) / 2**20


def cores() -> int:
    """CPU cores available to this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def environment() -> dict[str, Any]:
    """The machine and the versions of a result."""
    code = ["mnist_exp", "hydra_plugins", "conf", "benchmarks/*.py", "benchmarks/peers"]  # without results/
    commit = _git("describe", "--always", "--abbrev=10") + (
        "-dirty" if _git("status", "--porcelain", "--", *code) else ""
    )
    versions = {}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return {
        "date": datetime.date.today().isoformat(),
        "commit": commit,
        "cpu": _cpu(),
        "cores": cores(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_before": round(psutil.getloadavg()[0], 2),
        "versions": versions,
    }


def _git(*arguments: str) -> str:
    """Git's output for this repository; empty without one."""
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def processor(core: Mapping[str, str]) -> str:
    """The name of a processor, from the entry of one core in `/proc/cpuinfo`.

    Without the frequency. With family and model if the name has no number, as on clouds: `AMD EPYC`.
    """
    name = core["model name"].partition("@")[0].strip()
    known = any(letter.isdigit() for letter in name)
    return name if known else f"{name}, family {core['cpu family']} model {core['model']}"


def _cpu() -> str:
    """The processor's name, as precise as the system reports it."""
    with contextlib.suppress(OSError):
        cores = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")[0].splitlines()
        core = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in cores)}
        if "model name" in core:
            return processor(core)
    return platform.processor() or platform.machine()
