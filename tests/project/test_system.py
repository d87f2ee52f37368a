"""What depends on the system: here on Linux, with the answers of others put in its place."""

import ast
import collections
import errno
import importlib.util
import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import filelock
import psutil
import pytest
from elsewhere import ABSENT, LACKS, OURS
from samples import REPO

from mnist_exp import system
from mnist_exp.disk.files import atomic_write

FREE = {"/proc/self/cgroup": "0::/box\n"}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (FREE, 3_000_000_000),
        (FREE | {"/sys/fs/cgroup//box/memory.max": "2000000000\n"}, 2_000_000_000),
        (FREE | {"/sys/fs/cgroup//box/memory.max": "max\n", "/sys/fs/cgroup///memory.max": "1000\n"}, 1000),
        (
            FREE
            | {"/proc/self/cgroup": "4:memory:/box\n0::/\n", "/sys/fs/cgroup/memory//box/memory.limit_in_bytes": "500"},
            500,
        ),
    ],
)
def test_memory_is_what_is_free_and_allowed(
    files: dict[str, str], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = {Path(name): text for name, text in files.items()}
    monkeypatch.setattr(system, "_text", lambda path: paths.get(Path(path), ""))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=3_000_000_000))
    assert system.memory() == expected


def test_this_machine_has_some() -> None:
    assert 2**20 < system.memory() < 2**50


def test_without_such_files_the_memory_that_is_free_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "_text", lambda path: "")
    assert 2**20 < system.memory() <= psutil.virtual_memory().total


@pytest.mark.parametrize(
    ("platform", "said", "expected"),
    [("darwin", "4\n", 4), ("darwin", "", 10), ("win32", "", len(os.sched_getaffinity(0)))],
    ids=["Apple", "an Intel Mac", "Windows"],
)
def test_cores_elsewhere(platform: str, said: str, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(subprocess, "run", lambda asked, **_: subprocess.CompletedProcess(asked, 0, said))
    monkeypatch.setattr(os, "cpu_count", lambda: 10)
    system._fast_cores.cache_clear()
    assert system.cores() == expected
    system._fast_cores.cache_clear()


def test_a_mac_without_sysctl_has_all_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setenv("PATH", "")
    system._fast_cores.cache_clear()
    assert system.cores() == os.cpu_count()
    system._fast_cores.cache_clear()


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"/sys/fs/cgroup//box/cpu.max": "200000 100000\n"}, 2),
        ({"/sys/fs/cgroup//box/cpu.max": "max 100000\n", "/sys/fs/cgroup///cpu.max": "350000 100000\n"}, 3),
        ({"/sys/fs/cgroup//box/cpu.max": "50000 100000\n"}, 1),
        (
            {
                "/proc/self/cgroup": "4:cpu,cpuacct:/box\n0::/\n",
                "/sys/fs/cgroup/cpu//box/cpu.cfs_quota_us": "400000\n",
                "/sys/fs/cgroup/cpu//box/cpu.cfs_period_us": "100000\n",
            },
            4,
        ),
        ({"/sys/fs/cgroup//box/cpu.cfs_quota_us": "-1\n", "/sys/fs/cgroup//box/cpu.cfs_period_us": "100000\n"}, 8),
        ({}, 8),
    ],
)
def test_a_container_has_the_cores_that_it_may_use(
    files: dict[str, str], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = {Path(name): text for name, text in ({"/proc/self/cgroup": "0::/box\n"} | files).items()}
    monkeypatch.setattr(system, "_text", lambda path: paths.get(Path(path), ""))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    assert system.cores() == expected


Times = collections.namedtuple("Times", "user idle iowait")  # as psutil has them


@pytest.mark.parametrize(
    ("idle", "ours", "free"),
    [
        ((10.0, 8.0), 0.0, 1.8),  # another program had a fifth of the second core
        ((1.0, 0.0), 0.5, 0.15),
        ((0.0, 0.0), 20.0, 2.0),  # all of both
        ((10.0, 10.0), 9.0, 2.0),  # never more than there are
    ],
)
def test_free_cores_are_those_that_others_leave(
    idle: tuple[float, float], ours: float, free: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, used = iter((0.0, 10.0, 10.0)), iter((3.0, 3.0 + ours))
    after = [*(Times(1, 5 + each / 2, 1 + each / 2) for each in idle), Times(1, 99, 1)]
    times = iter(([Times(1, 5, 1)] * 3, after))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})  # the third core is none of ours
    monkeypatch.setattr(psutil, "cpu_times", lambda percpu: next(times))
    monkeypatch.setattr(psutil.Process, "children", lambda self, recursive: [])
    monkeypatch.setattr(system.time, "monotonic", clock.__next__)
    monkeypatch.setattr(system.time, "process_time", used.__next__)
    assert system.FreeCores().look() == pytest.approx(free)


def test_a_look_just_after_another_says_nothing() -> None:
    assert system.FreeCores().look() is None


def test_what_children_use_is_not_what_others_use() -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as child:
        before = system.FreeCores._read()
        while psutil.Process(child.pid).cpu_times().user < 0.3:
            time.sleep(0.01)
        assert system.FreeCores._read()[2] - before[2] > 0.2
        child.kill()


def read_until(
    closed: float, monkeypatch: pytest.MonkeyPatch, platform: str = "win32", of: Any = Path, name: str = "replace"
) -> None:
    """From here on the function *name* fails for *closed* seconds, as while somebody reads the file there."""
    clock, real = itertools.count(), getattr(of, name)

    def change(path: Path, *arguments: Any, **options: Any) -> Any:
        if next(clock) < closed * 100:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments, **options)

    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(of, name, change)
    monkeypatch.setattr(system.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(system.time, "monotonic", (each / 100 for each in itertools.count()).__next__)


def test_a_file_that_is_being_read_is_replaced_a_moment_later(monkeypatch: pytest.MonkeyPatch) -> None:
    read_until(1.0, monkeypatch)
    atomic_write(Path("a"), b"new")
    assert Path("a").read_bytes() == b"new"


@pytest.mark.parametrize(("of", "name", "delete"), [(Path, "unlink", system.unlink), (shutil, "rmtree", system.delete)])
def test_what_is_being_read_is_deleted_a_moment_later(
    of: Any, name: str, delete: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path("a")
    path.mkdir() if name == "rmtree" else path.touch()
    read_until(1.0, monkeypatch, of=of, name=name)
    delete(path)
    assert not path.exists()


@pytest.mark.parametrize(("closed", "platform"), [(9.0, "win32"), (1.0, "linux")])
def test_one_that_stays_open_or_is_protected_is_an_error(
    closed: float, platform: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("a").write_bytes(b"old")
    read_until(closed, monkeypatch, platform)
    with pytest.raises(PermissionError):
        atomic_write(Path("a"), b"new")
    assert [path.name for path in Path().iterdir()] == ["a"], "no temporary file stays"
    assert Path("a").read_bytes() == b"old"


def test_a_lock_is_seen_where_none_can_be_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    lock = filelock.FileLock("lock")
    with lock:
        monkeypatch.setattr(sys, "platform", "win32")
        assert system.locked(Path("lock"))
    assert not system.locked(Path("lock"))
    assert not system.locked(Path("missing"))
    assert not Path("missing").exists(), "who asks leaves nothing"


@pytest.mark.parametrize("platform", ["linux", "win32"])
def test_a_signal_from_a_thread_is_handled_by_the_main_thread(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    handled: list[tuple[int, bool]] = []
    before = signal.signal(
        signal.SIGTERM,
        lambda number, _: handled.append((number, threading.current_thread() is threading.main_thread())),
    )
    try:
        thread = threading.Thread(target=system.interrupt, args=(signal.SIGTERM,))
        thread.start()
        thread.join()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert handled == [(signal.SIGTERM, True)]


def test_a_folder_is_let_go_before_it_is_deleted_where_it_must_be(monkeypatch: pytest.MonkeyPatch) -> None:
    held, real = [], shutil.rmtree
    monkeypatch.setattr(shutil, "rmtree", lambda folder: (held.append(lock.is_locked), real(folder)))
    for platform in ("linux", "win32"):
        monkeypatch.setattr(sys, "platform", platform)
        Path("run").mkdir()
        lock = filelock.FileLock("run/.lock")
        lock.acquire()
        system.delete(Path("run"), lock)
        assert not Path("run").exists()
    assert held == [True, False]


def test_a_reader_that_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = [system.is_reader_gone(OSError(number, "")) for number in (errno.EPIPE, errno.EINVAL, errno.ENOSPC)]
    assert gone == [True, False, False]
    monkeypatch.setattr(sys, "platform", "win32")
    assert system.is_reader_gone(OSError(errno.EINVAL, ""))


# Which names only some systems have, and who uses them.

LIMITED = {f"{module}.{name}" for lacks in LACKS.values() for module, names in lacks.items() for name in names.split()}
LIMITED |= {"os.kill", "os.name", "sys.platform", "platform.system"} | {
    name for names in ABSENT.values() for name in names
}
OPTIONS = {"process_group", "start_new_session", "preexec_fn", "pass_fds", "dir_fd", "creationflags"}
ALLOWED = {
    "mnist_exp/system.py": None,
    "mnist_exp/sweep/cluster/slurm.py": {
        "sys.platform",
        "signal.pthread_sigmask",
        "signal.SIG_UNBLOCK",
    },  # its jobs are on Linux
}
PATHS = {path.relative_to(REPO).as_posix(): path for each in OURS for path in (REPO / each).rglob("*.py")}


def limited(source: str) -> set[str]:
    """What the text *source* uses that only some systems have, or that is another thing on each."""
    used, nodes = set(), list(ast.walk(ast.parse(source)))
    aliases = [alias for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    called = {alias.asname: alias.name for alias in aliases}  # import os as o
    for node in nodes:
        match node:
            case ast.Attribute(ast.Name(module), name) | ast.Call(
                ast.Name("getattr" | "hasattr"), [ast.Name(module), ast.Constant(name), *_]
            ):
                used.add(f"{called.get(module, module)}.{name}")
            case ast.ImportFrom(module, names):
                used |= {str(module), *(f"{module}.{alias.name}" for alias in names)}
            case ast.keyword(str(name)):
                used |= {name} & OPTIONS
            case ast.Constant(str(text)) if text.startswith(("/proc/", "/sys/", "/dev/")):
                used.add(text)
    used |= {alias.name for alias in aliases}
    return {name for name in used if name in LIMITED | OPTIONS or name.startswith("/")}


def changing(source: str) -> set[str]:
    """By which functions the text *source* deletes and replaces files, which Windows refuses while they are read."""
    used = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(ast.Attribute(ast.Name("system" | "dataclasses"))):
                pass
            case (
                ast.Call(ast.Attribute(ast.Name("os"), "remove" as name))
                | ast.Call(ast.Attribute(_, "unlink" | "rmtree" | "renames" as name))
                | ast.Call(ast.Attribute(_, "replace" | "rename" as name), [_], [])  # not those of texts and tables
                | ast.Call(ast.Attribute(ast.Name("os"), "replace" | "rename" as name))
            ):
                used.add(name)
    return used


@pytest.mark.parametrize("name", PATHS)
def test_only_one_module_uses_what_some_systems_lack(name: str) -> None:
    allowed, source = ALLOWED.get(name, set()), PATHS[name].read_text(encoding="utf-8")
    assert allowed is None or (limited(source), changing(source)) == (allowed, set())


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("import os\nos.setpgid(0, 0)", {"os.setpgid"}),
        ("from os import fork", {"os.fork"}),
        ("def f():\n    import fcntl", {"fcntl"}),
        ("from signal import SIGUSR2", {"signal.SIGUSR2"}),
        ("Popen([], process_group=0)", {"process_group"}),
        ("open('/proc/cpuinfo')", {"/proc/cpuinfo"}),
        ("len(os.sched_getaffinity(0))", {"os.sched_getaffinity"}),
        ("if sys.platform == 'linux': pass", {"sys.platform"}),
        ("import os as o\no.fork()", {"os.fork"}),
        ("getattr(os, 'fork', None)", {"os.fork"}),
        ("import os\nos.fsync(1)\nsignal.SIGINT", set()),
    ],
)
def test_meta_such_a_name_is_found(source: str, names: set[str]) -> None:
    assert limited(source) == names


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("path.unlink(missing_ok=True)", {"unlink"}),
        ("shutil.rmtree(folder)", {"rmtree"}),
        ("new.replace(old)", {"replace"}),
        ("os.replace(new, old)", {"replace"}),
        ("os.remove(path)", {"remove"}),
        ("system.unlink(path), system.replace(new, old), system.delete(folder)", set()),
        ("text.replace('a', 'b'), table.rename(columns=names), dataclasses.replace(entry), names.remove(name)", set()),
    ],
)
def test_meta_a_bare_deletion_is_found(source: str, names: set[str]) -> None:
    assert changing(source) == names


def test_the_names_that_are_removed_are_there() -> None:
    """Else a typing error in their list would remove nothing."""
    names = {name for name in LIMITED if "." in name}
    assert [
        name for name in names if not hasattr(importlib.import_module(name.split(".")[0]), name.split(".")[1])
    ] == []
    assert [name for names in ABSENT.values() for name in names if importlib.util.find_spec(name) is None] == []


@pytest.mark.parametrize(
    ("code", "missing"),
    [
        ("import os\nos.setpgid(0, 0)", "AttributeError: module 'os' has no attribute 'setpgid'"),
        ("import fcntl", "ModuleNotFoundError: No module named 'fcntl'"),
        ("from signal import SIGHUP", "ImportError: cannot import name 'SIGHUP'"),
        ("from pathlib import Path\nPath('/proc/meminfo').read_text()", "FileNotFoundError"),
        ("import subprocess\nsubprocess.Popen(['true'], process_group=0)", "AssertionError"),
        ("from pathlib import Path\nfile = open('a', 'w')\nPath('a').unlink()", "PermissionError"),
        (
            "from pathlib import Path\nfile = open('a', 'w')\nPath('b').touch()\nPath('b').replace('a')",
            "PermissionError",
        ),
        ("import os, shutil\nos.mkdir('c')\nfile = open('c/d', 'w')\nshutil.rmtree('c')", "PermissionError"),
    ],
)
def test_meta_the_simulation_fails_where_windows_would(code: str, missing: str) -> None:
    support = REPO / "tests" / "support"
    own = {"PYTHONPATH": f"{support / 'hook'}{os.pathsep}{support}", "MNIST_EXP_ELSEWHERE": "win32"}
    text = f"exec({code!r}, {{'__name__': 'mnist_exp.new'}})"
    done = subprocess.run(
        [sys.executable, "-c", text], env={**os.environ, **own}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert missing in done.stderr
