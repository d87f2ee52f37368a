"""Another operating system, simulated: this package sees `os`, `signal` and others as they are there.

In a command with `MNIST_EXP_ELSEWHERE=win32` (or `darwin`) and the folder `hook` on its path, and in all that it
starts, what this package imports lacks what that system lacks, and has what only Windows has, made of what is here.
`MNIST_EXP_ELSEWHERE=win32 pytest` runs tests so, but for those that are marked `not_on`, with the reason. Libraries
keep theirs: they are others there. So it shows that this package asks for nothing that is not there, that workers by
`spawn` are whole, that it deletes and replaces no file that is open, and what the stand-ins below say; not how Windows
itself behaves.
"""

import builtins
import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, final

# By the stubs that mypy has of the standard library (typeshed), names of functions and flags that Python 3.11 to 3.14
# have on Linux and not there.
LACKS = {
    "win32": {
        "os": "O_ACCMODE O_ASYNC O_CLOEXEC O_DIRECT O_DIRECTORY O_DSYNC O_NOATIME O_NOCTTY O_NOFOLLOW O_NONBLOCK "
        "O_PATH O_SYNC O_TMPFILE WNOHANG WUNTRACED WEXITED WIFEXITED WEXITSTATUS WIFSIGNALED WTERMSIG "
        "WCOREDUMP chown chroot confstr copy_file_range ctermid environb eventfd fchdir fchmod fchown "
        "fdatasync fork forkpty fpathconf fstatvfs fwalk get_blocking getegid getenvb geteuid getgid "
        "getgrouplist getgroups getloadavg getpgid getpgrp getpriority getrandom getresgid getresuid getsid "
        "getuid getxattr initgroups killpg lchown listxattr lockf major makedev memfd_create minor mkfifo "
        "mknod nice openpty pathconf pidfd_open pipe2 posix_fadvise posix_fallocate posix_spawn posix_spawnp "
        "pread preadv pwrite pwritev readv register_at_fork removexattr sched_getaffinity sched_getscheduler "
        "sched_setaffinity sched_setscheduler sched_yield sendfile set_blocking setegid seteuid setgid "
        "setgroups setpgid setpgrp setpriority setregid setresgid setresuid setreuid setsid setuid setxattr "
        "splice statvfs sync sysconf tcgetpgrp tcsetpgrp ttyname uname wait wait3 wait4 waitid writev",
        "signal": "ITIMER_REAL ITIMER_VIRTUAL SIGALRM SIGBUS SIGCHLD SIGCONT SIGHUP SIGIO SIGKILL SIGPIPE SIGPROF "
        "SIGQUIT SIGSTOP SIGTSTP SIGTTIN SIGTTOU SIGURG SIGUSR1 SIGUSR2 SIGVTALRM SIGWINCH SIGXCPU SIGXFSZ SIG_BLOCK "
        "SIG_SETMASK SIG_UNBLOCK alarm getitimer pause pidfd_send_signal pthread_kill pthread_sigmask setitimer "
        "siginterrupt sigpending sigtimedwait sigwait sigwaitinfo",
        "select": "epoll poll PIPE_BUF",
        "socket": "AF_UNIX AF_NETLINK MSG_DONTWAIT MSG_NOSIGNAL SCM_RIGHTS recv_fds send_fds",
        "time": "CLOCK_MONOTONIC clock_gettime clock_gettime_ns clock_getres tzset pthread_getcpuclockid",
    },
    "darwin": {
        "os": "O_DIRECT O_NOATIME O_PATH O_TMPFILE copy_file_range eventfd fdatasync getrandom getresgid getresuid "
        "getxattr listxattr memfd_create pidfd_open pipe2 posix_fadvise posix_fallocate removexattr sched_getaffinity "
        "sched_getparam sched_getscheduler sched_setaffinity sched_setscheduler setresgid setresuid setxattr splice",
        "signal": "SIGPOLL SIGPWR SIGSTKFLT pidfd_send_signal sigtimedwait sigwaitinfo",
        "select": "epoll",
        "time": "CLOCK_BOOTTIME pthread_getcpuclockid",
    },
}
ABSENT: dict[str, list[str]] = {
    "win32": ["fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"],
    "darwin": [],
}
OURS = ("mnist_exp", "hydra_plugins")
CATCHABLE = (signal.SIGABRT, signal.SIGFPE, signal.SIGILL, signal.SIGINT, signal.SIGSEGV, signal.SIGTERM)


@final
class Other(ModuleType):
    """The module *real* as another system has it: without the names that it *lacks*, and with those that it *has*."""

    def __init__(self, real: ModuleType, lacks: str = "", has: dict[str, Any] | None = None) -> None:
        super().__init__(real.__name__)
        self.__dict__.update(_real=real, _lacks=frozenset(lacks.split()), _before={}, **(has or {}))

    def __getattr__(self, name: str) -> Any:
        if name in self._lacks:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r} on {sys.platform} elsewhere")
        return getattr(self._real, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__:
            super().__setattr__(name, value)
        else:  # a test puts something in its place, for libraries, too
            self._before.setdefault(name, getattr(self._real, name))
            setattr(self._real, name, value)

    def __delattr__(self, name: str) -> None:
        setattr(self._real, name, self._before.pop(name))  # and takes it back


def install(platform: str) -> None:
    """Makes this process one of that *platform*, as far as this package can tell."""
    has: dict[str, dict[str, Any]] = {"sys": {"platform": platform}}
    if platform == "win32":
        has |= {
            "os": {"name": "nt", "kill": kill},
            "signal": {"signal": handle},
            "subprocess": {"CREATE_NO_WINDOW": 0x08000000, "Popen": popen},
            "psutil": {"BELOW_NORMAL_PRIORITY_CLASS": 5},
            "ctypes": {"windll": SimpleNamespace(kernel32=SimpleNamespace(SetConsoleCtrlHandler=ignore_ctrl_c))},
        }
    reals = (os, signal, subprocess, ctypes, sys, *map(__import__, ("psutil", "select", "socket", "time")))
    others = {
        each.__name__: Other(each, LACKS[platform].get(each.__name__, ""), has.get(each.__name__)) for each in reals
    }
    importer = builtins.__import__

    def imported(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
        spec, asking = (globals or {}).get("__spec__"), (globals or {}).get("__name__", "")
        if (spec.name if asking == "__main__" and spec else asking).partition(".")[0] in OURS:
            if name in ABSENT[platform]:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
            if name in others:
                return others[name]
        return importer(name, globals, locals, fromlist, level)

    builtins.__import__ = imported
    sys.addaudithook(hide_proc)
    if platform == "win32":
        sys.addaudithook(keep_open_files)


def hide_proc(event: str, arguments: tuple[Any, ...]) -> None:
    """Linux's files about the machine are not there for this package."""
    if event == "open" and str(arguments[0]).startswith(("/proc/", "/sys/")) and is_ours():
        raise FileNotFoundError(2, "No such file or directory", arguments[0])


def keep_open_files(event: str, arguments: tuple[Any, ...]) -> None:
    """Windows lets this package neither delete nor replace a file that a process has open."""
    if event in ("os.remove", "os.rename") and is_ours():
        half = len(arguments) // 2  # paths, then the folders that they are relative to
        for path, folder in zip(arguments[:half], arguments[half:], strict=True):
            if is_open((Path(f"/proc/self/fd/{folder}").readlink() if folder >= 0 else Path.cwd()) / path):
                raise PermissionError(13, "Another process has the file open", path)


def is_ours() -> bool:
    """Whether this package asks an audit hook, by itself or by the standard library's helpers."""
    frame: Any = sys._getframe(2)
    while frame and frame.f_globals.get("__name__") in ("pathlib", "pathlib._local", "io", "shutil"):
        frame = frame.f_back
    return bool(frame) and str(frame.f_globals.get("__name__")).partition(".")[0] in OURS


def is_open(path: Path) -> bool:
    """Whether this process, or another that works in the same folder, has that file open."""
    beside = [each for each in Path("/proc").glob("[0-9]*") if leads_to(each / "cwd") == Path.cwd()]
    path = path.parent.resolve() / path.name
    return any(leads_to(file) == path for each in beside for file in (each / "fd").glob("*"))


def leads_to(link: Path) -> Path | None:
    """What is behind a *link*; None if it has gone meanwhile."""
    try:
        return link.readlink()
    except OSError:
        return None


def kill(pid: int, number: int) -> None:
    """What `os.kill` does on Windows, whatever the signal."""
    os.kill(pid, signal.SIGKILL)


def handle(number: int, handler: Any) -> Any:
    """`signal.signal` there."""
    if number not in CATCHABLE:
        raise ValueError("invalid signal value")
    return signal.signal(number, handler)


def popen(*arguments: Any, creationflags: int = 0, **options: Any) -> "subprocess.Popen[Any]":
    """`subprocess.Popen` there: one without a window has a console of its own, which Ctrl-C does not reach."""
    assert not options.keys() & {"process_group", "start_new_session", "preexec_fn", "pass_fds", "umask", "user"}
    return subprocess.Popen(*arguments, **options, process_group=0 if creationflags & 0x08000000 else None)


def ignore_ctrl_c(routine: None, ignore: bool) -> None:
    """The console's Ctrl-C does not come to this process any more; `signal.raise_signal` does."""
    assert routine is None
    assert ignore
    os.setpgid(0, 0)
