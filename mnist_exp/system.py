"""What depends on the operating system: processes and signals, processors and memory, files that others hold.

No other module uses a name that only some systems have, but for Slurm's (`sweep/cluster/slurm.py`): its jobs run on
Linux. On macOS and Windows none of this has been run; tests simulate what they lack (tests/support/elsewhere.py).
"""

import errno
import functools
import os
import platform
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, final

import filelock

if sys.platform != "win32":
    import fcntl

MOST_THREADS = 1024
TESTED = sys.platform == "linux"
READERS = 2.0  # seconds in which a reader closes a file that Windows neither replaces nor deletes before
LOOK = 1.0  # seconds at least between two looks at the load: systems count in hundredths
ASKERS = 0.05  # seconds in which others that only ask let a lock go


def name() -> str:
    """What this system and its machine call themselves."""
    return f"{platform.system()} {platform.release()} on {platform.machine()}"


# Processes


def start_method() -> str:
    """How workers start: forked from a server that has loaded torch, or afresh.

    Windows cannot fork, and on macOS what a system library did before a fork may end the process after it.
    """
    return "forkserver" if sys.platform == "linux" else "spawn"


def ignore_interrupts() -> None:
    """Keeps Ctrl-C in the terminal from this process: it is for the driver, which then asks its workers."""
    if sys.platform == "win32":
        import ctypes

        ctypes.windll.kernel32.SetConsoleCtrlHandler(None, True)
    else:
        os.setpgid(0, 0)


def apart() -> dict[str, Any]:
    """Options of `subprocess.Popen` for a child that Ctrl-C does not reach, and that outlives a closed console.

    Elsewhere than on Windows it inherits for the latter what `ignore_hangup` did.
    """
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NO_WINDOW}  # a console of its own
    return {"process_group": 0}


def python_path() -> str:
    """The PYTHONPATH with which another Python process finds this package, installed or not."""
    return os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]))


def start_module(name: str, *typed: str, environment: Mapping[str, str], **options: Any) -> "subprocess.Popen[Any]":
    """Starts module *name* of this package in a process `apart`, which imports nothing from the working folder.

    Its standard input closes when this process ends, however it ends.
    """
    return subprocess.Popen(
        [sys.executable, "-P", "-m", f"mnist_exp.{name}", *typed],
        stdin=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": python_path(), **environment},
        **apart(),
        **options,
    )


def ignore_hangup() -> None:
    """Lets this process and its children outlive their terminal. On Windows a console that is closed ends them."""
    if sys.platform != "win32":
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


def step_back() -> None:
    """Lets other processes go before this one: it gets a quarter of a core where they want all of them."""
    if sys.platform == "win32":
        import psutil

        psutil.Process().nice(psutil.BELOW_NORMAL_PRIORITY_CLASS)
    else:
        os.nice(5)


def interrupt(number: int) -> None:
    """Has the main thread of this process handle that signal."""
    if sys.platform == "win32":
        signal.raise_signal(number)  # os.kill would end the process
    else:
        os.kill(os.getpid(), number)  # also wakes the main thread


# Processors and memory


@functools.cache
def processor() -> str:
    """What Linux has in a file about the first core, and other systems say by themselves."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as cores:
            return cores.read(4000)  # a server has hundreds of cores
    except OSError:
        return platform.processor()


def cores() -> int:
    """Processors that this process may use, within a container's limit; of Apple's only the fast ones, as in torch."""
    if sys.platform == "darwin":
        return _fast_cores() or os.cpu_count() or 1
    allowed = _allowed() or range(os.cpu_count() or 1)
    return max(1, min([len(allowed), *map(int, _quotas())]))


def _allowed() -> list[int]:
    """The numbers of the processors that this process is bound to; empty where a system does not say."""
    if sys.platform == "win32":
        import psutil

        return list(psutil.Process().cpu_affinity())
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def _quotas() -> Iterator[float]:
    """How many processors' time a container's groups may use: `docker run --cpus=2`."""
    for path in _groups("cpu"):
        older = _text(f"{path}/cpu.cfs_quota_us") + _text(f"{path}/cpu.cfs_period_us")
        for limits in (_text(f"{path}/cpu.max"), older):
            if match := re.fullmatch(r"(\d+)\s(\d+)\s", limits):
                yield int(match[1]) / int(match[2])


@final
class FreeCores:
    """How many of the processors that this process may use others leave free, since the last look or the beginning."""

    def __init__(self) -> None:
        self.last = self._read()

    def look(self) -> float | None:
        """The mean number, with what this process and its children use themselves; None: too little time has passed."""
        if time.monotonic() - self.last[0] < LOOK:  # short epochs end more often than processes are worth counting
            return None
        now = self._read()
        seconds, idle, ours = (new - old for new, old in zip(now, self.last, strict=True))
        self.last = now
        return min(cores(), (idle + ours) / seconds)

    @staticmethod
    def _read() -> tuple[float, float, float]:
        """Seconds by the clock, seconds that processors were idle, and seconds of them that this process had."""
        import psutil

        each = psutil.cpu_times(percpu=True)
        some = [each[number] for number in _allowed() if number < len(each)] or each
        ours = time.process_time()
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):  # it has ended
                times = child.cpu_times()
                ours += times.user + times.system
        return time.monotonic(), sum(times.idle + getattr(times, "iowait", 0.0) for times in some), ours


@functools.cache
def _fast_cores() -> int:
    """Performance cores of an Apple processor; of an Intel Mac, which has one kind, 0."""
    asked = ["sysctl", "-n", "hw.perflevel0.physicalcpu"]
    try:
        said = subprocess.run(asked, capture_output=True, encoding="utf-8", check=False).stdout.strip()
    except OSError:
        return 0
    return int(said) if said.isdecimal() else 0


def memory() -> int:
    """Bytes of memory that are free or can be freed, within a container's limit."""
    import psutil

    sizes: list[int] = [psutil.virtual_memory().available]
    for path in _groups("memory"):
        for limit in ("memory.max", "memory.limit_in_bytes"):
            sizes += map(int, re.findall(r"^\d+", _text(f"{path}/{limit}")))
    return min(sizes)


def _groups(controller: str) -> Iterator[str]:
    """Folders of the groups of processes whose limits hold for this one, with Linux's control groups, old or new."""
    for line in _text("/proc/self/cgroup").splitlines():
        _, kinds, group = line.split(":", 2)
        for path in {group, "/"}:  # a container sees its own group as the root
            if not kinds:
                yield f"/sys/fs/cgroup/{path}"
            elif controller in kinds.split(","):
                yield f"/sys/fs/cgroup/{controller}/{path}"


def _text(path: str) -> str:
    """What is in a file of the system; nothing where there is none."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""


# Files


def only_ours(file: int) -> bool:
    """Whether the open *file* is this user's and not everybody may write it; on Windows its folder sees to that."""
    if sys.platform == "win32":
        return True
    about = os.fstat(file)
    return about.st_uid == os.geteuid() and not about.st_mode & stat.S_IWOTH


def replace(new: Path, old: Path) -> None:
    """Gives *new* the name of *old*, in one step.

    Raises:
        OSError: as `unlink`.
    """
    _when_closed(lambda: new.replace(old))


def unlink(path: Path) -> None:
    """Deletes the file *path*, if there is one.

    Raises:
        OSError: it cannot be done, or on Windows a reader did not close it within `READERS` seconds.
    """
    _when_closed(lambda: path.unlink(missing_ok=True))


def delete(folder: Path, lock: filelock.BaseFileLock | None = None) -> None:
    """Deletes *folder*, in which this process may hold *lock*. Windows deletes no open file: there it lets go before.

    Raises:
        OSError: as `unlink`, of some of it.
    """
    if lock and sys.platform == "win32":
        lock.release()
    _when_closed(lambda: shutil.rmtree(folder))


def _when_closed(change: Callable[[], object]) -> None:
    """Does the *change* of files; on Windows it waits until those who read them have closed them."""
    limit = time.monotonic() + READERS
    while True:
        try:
            change()
            return
        except PermissionError:
            if sys.platform != "win32" or time.monotonic() > limit:
                raise
        time.sleep(0.01)


def sync_names(folder: Path) -> None:
    """Makes the names of the files in *folder* durable; Windows does that by itself."""
    if sys.platform != "win32":
        directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def locked(lock: Path) -> bool:
    """Whether a process holds the file *lock*, by `filelock`. Those who ask do not take each other for the holder."""
    if sys.platform == "win32":  # no lock that they could share
        try:
            with filelock.FileLock(lock, timeout=ASKERS, poll_interval=ASKERS / 10) if lock.exists() else nullcontext():
                return False
        except filelock.Timeout:
            return True
    else:
        try:
            file = os.open(lock, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe would wait for a writer
        except (FileNotFoundError, NotADirectoryError):
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(file)
        return False


def hollow(entry: os.stat_result) -> bool:
    """Whether a file claims a gigabyte and more, of which the disk has not a hundredth."""
    return sys.platform != "win32" and entry.st_size > max(2**30, 100 * 512 * entry.st_blocks)


def is_reader_gone(error: OSError) -> bool:
    """Whether *error* of a write says that nobody reads the pipe any more."""
    return error.errno == errno.EPIPE or (sys.platform == "win32" and error.errno == errno.EINVAL)
