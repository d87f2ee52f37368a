"""Warm starts: commands of this package begin as forks of a process that has loaded torch, Hydra and MLflow.

`install` replaces `subprocess.Popen` by one that recognises `python -m mnist_exp.x`, with `-P` or without, and a
console script, and asks a `Server` for them. The fork gets the pipes, the working directory and the environment that
were asked for, and imports the package anew. It is a child of whoever asked: waited for, signalled and killed like any
other. Each command has a server of its own for the processes that it starts, a sweep's fork server among them, forked
before it does anything.
What the libraries could have loaded in another way starts cold, as without all this.

No server runs a kernel: a fork of a process with OpenMP's threads hangs.
"""

import atexit
import contextlib
import ctypes
import fcntl
import gc
import importlib
import importlib.metadata
import multiprocessing.util
import os
import pickle
import re
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, AnyStr, final

LIBRARIES = (
    *("torch", "torch.export._trace", "torch.export.pt2_archive._package", "torch.utils.serialization.config"),
    *("torch._inductor.ir", "torch._export.passes.replace_with_hop_pass_util", "torch._inductor.compiler_bisector"),
    *("numpy", "pandas", "safetensors.torch", "cloudpickle", "filelock", "platformdirs", "yaml", "email.policy"),
    *("hydra._internal.hydra", "hydra.core.override_parser.overrides_parser", "hydra.utils", "omegaconf"),
    *("mlflow.store.tracking.sqlalchemy_store", "mlflow.tracing.processor.base_mlflow", "alembic.config"),
    *("mlflow.pyfunc", "mlflow.store.tracking.sqlalchemy_workspace_store", "sqlalchemy.dialects.sqlite"),
    *(
        "matplotlib.pyplot",
        "matplotlib.backends.backend_agg",
        "matplotlib.backends.backend_svg",
        "PIL.JpegImagePlugin",
        "jinja2",
    ),
    *("rich.progress", "rich.table", "PIL.JpegImagePlugin", "argcomplete", "multiprocessing.forkserver"),
)
OPTIONAL = ("optuna", "optuna.samplers._tpe.sampler")

# What no library reads while it is imported. A command for which any other variable differs starts cold.
LATE = re.compile(
    "PYTHONPATH|PYTHONSAFEPATH|PYTHONIOENCODING|PATH|HOME|XDG_CACHE_HOME|TZ|COLUMNS|LINES|TERM|NO_COLOR|FORCE_COLOR"
    "|HYDRA_FULL_ERROR|JPY_PARENT_PID|USER|SLURM_CONF|RAY_[A-Z_]*|PWD|OLDPWD|SHLVL|_|PYTEST_.*|MNIST_EXP_(?!COLD).*|MLFLOW_TRACKING_.*|MLFLOW_HTTP_.*|.*(KEY|TOKEN|PASSWORD)"
)
DRAWS = "mnist_exp.sweep.live"
"""It trains nothing, so that it may start warm with another number of threads."""
COLD = {"MNIST_EXP_COLD": "1"}
"""The variable of a command that is to start in an interpreter of its own."""
NAME, SUBREAPER = 15, 36  # of prctl


@final
@dataclass
class Start:
    """What a server is asked to start."""

    argv: list[str]
    code: str
    """The program, as after `python -c`; if empty, *command* is, as after `python -m`."""
    module: str
    environ: dict[str, str]
    folder: str
    descriptors: Sequence[int]
    """The numbers that the descriptors sent along have in the process."""
    umask: int
    safe: bool
    """Whether it imports nothing from its working folder or its program's, as after `python -P`."""
    session: bool = False
    """Whether it begins one."""
    group: int = -1
    """The process group that it joins, if not negative; 0: a new one."""


@final
class Server:
    """Its owner's end of a process that forks commands.

    Args:
        environ: The environment in which it loaded its libraries.
    """

    def __init__(self, connection: socket.socket, environ: dict[str, str]) -> None:
        self.connection, self.environ, self.owner, self.lock = connection, environ, os.getpid(), threading.Lock()
        self.process: cold[bytes] | None = None
        self.commands = 0
        """How many it has started."""

    def start(self, what: Start, descriptors: Sequence[int]) -> int | None:
        """The new child's number; None if it has to start cold."""
        besides = {"OMP_NUM_THREADS"} if what.module == DRAWS else set()
        if os.getpid() != self.owner or not self.fits(what.environ, besides):
            return None
        with self.lock, contextlib.suppress(OSError):  # a server that was killed
            prctl(SUBREAPER, 1)  # the child's parent ends at once, and then it is ours
            try:
                socket.send_fds(self.connection, [pickle.dumps(what)], descriptors)
                if pid := int(self.connection.recv(20) or 0):
                    self.commands += 1
                    return pid
            finally:
                prctl(SUBREAPER, 0)
        return None

    def ended(self) -> bool:
        """Whether its process has; False in a fork of its owner, which does not know."""
        return os.getpid() == self.owner and self.process is not None and self.process.poll() is not None

    def fits(self, environ: dict[str, str], besides: Collection[str] = ()) -> bool:
        """Whether the libraries would be the same in *environ*, whatever the variables *besides* are."""
        own = search_path(self.environ)
        same_path = search_path(environ)[-len(own) :] == own if own else True
        changed = {name for name, _ in self.environ.items() ^ environ.items()}
        return same_path and all(LATE.fullmatch(name) for name in changed.difference(besides))


def prctl(option: int, value: Any) -> None:
    """Sets an attribute of this process."""
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def search_path(environ: dict[str, str]) -> list[str]:
    return [folder for folder in environ.get("PYTHONPATH", "").split(os.pathsep) if folder]


def umask() -> int:
    os.umask(mask := os.umask(0o077))
    return mask


def program(typed: Sequence[str]) -> tuple[str, str] | None:
    """The code or the module that *typed* runs, if that is a command of this package."""
    if list(typed[:2]) == [sys.executable, "-m"] and typed[2].startswith("mnist_exp."):
        return "", typed[2]
    if Path(typed[0]).parent == Path(sys.executable).parent:
        for script in importlib.metadata.entry_points(group="console_scripts", name=Path(typed[0]).name):
            if script.module.startswith("mnist_exp."):
                return f"import sys; from {script.module} import {script.attr}; sys.exit({script.attr}())", ""
    return None


cold = subprocess.Popen


class Popen(cold[AnyStr]):
    """A `subprocess.Popen` that has a server start what it can."""

    server: Callable[[], Server]

    def _execute_child(self, args: Any, executable: Any, preexec_fn: Any, close_fds: Any, *others: Any) -> None:
        pass_fds, cwd, env, _, _, shell, *pipes = others[:12]
        _, *user, mask, session, group = others[12:]
        plain = isinstance(args, (list, tuple)) and not (executable or preexec_fn or shell or any(user)) and close_fds
        typed = [os.fspath(word) for word in args] if plain else []
        if safe := typed[:2] == [sys.executable, "-P"]:
            del typed[1]
        if plain and mask < 0 and (command := program(typed)):
            argv, folder, numbers = typed[2:] if command[1] else typed, Path(cwd or "").absolute(), [0, 1, 2, *pass_fds]
            asked = dict(os.environ if env is None else env)
            what = Start(argv, *command, asked, str(folder), numbers, umask(), safe, session, group)
            given = [pipe if pipe >= 0 else number for number, pipe in enumerate((pipes[0], pipes[3], pipes[5]))]
            if folder.is_dir() and (pid := Popen.server().start(what, [*given, *pass_fds])):
                self.pid, self._child_created = pid, True
                self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]
                return
        super()._execute_child(args, executable, preexec_fn, close_fds, *others)  # type: ignore[misc]


spawn = multiprocessing.util.spawnv_passfds


def spawn_helper(path: Any, typed: list[Any], kept: Sequence[int]) -> int:
    """multiprocessing's start of a helper process: its fork server has loaded the libraries."""
    code = str(typed[-1])
    if code.startswith("from multiprocessing.forkserver import main"):
        numbers = [0, 1, 2, *kept]
        what = Start(["-c"], code, "", dict(os.environ), str(Path.cwd()), numbers, umask(), safe="-P" in typed)
        if pid := Popen.server().start(what, numbers):
            return pid
    return spawn(path, typed, kept)


def always(environ: dict[str, str]) -> Callable[[], Server]:
    """Returns what has one server in *environ*, started when it is first asked for.

    A server that has ended is replaced.
    """
    servers: list[Server] = []

    def server() -> Server:
        if servers and servers[0].ended():
            servers.pop().connection.close()
        if not servers:
            servers.append(started(environ))
        return servers[0]

    return server


def install(server: Callable[[], Server]) -> None:
    """Has a server start this process's commands from now on; *server* is called when there is one to start."""
    Popen.server = staticmethod(server)
    subprocess.Popen = Popen  # type: ignore[misc]


def started(environ: dict[str, str]) -> Server:
    """A server in a process of its own, which loads its libraries in *environ*."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import warm; warm.main({theirs.fileno()})"
    server = Server(ours, environ)
    # Not in the test's folder: what a test leaves running there is killed, perhaps while the server still loads.
    server.process = cold([sys.executable, "-c", code], cwd="/", env=environ, pass_fds=[theirs.fileno()])
    theirs.close()
    return server


# From here on: in the server, and in what it starts.


def main(descriptor: int) -> None:
    """Loads the libraries, then serves; a forked command comes back from that, and runs."""
    atexit.register(leave)  # the first one that is registered is called last
    environ, path = dict(os.environ), sys.path[2 + len(search_path(dict(os.environ))) :]  # without ours, and ''
    for library in LIBRARIES:
        importlib.import_module(library)
    for library in OPTIONAL:
        with contextlib.suppress(ImportError):
            importlib.import_module(library)
    gc.collect()
    gc.freeze()
    what = serve(socket.socket(fileno=descriptor))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        ours.close()
        what = serve(theirs)
    else:
        theirs.close()
        server = Server(ours, environ)
        install(lambda: server)
        multiprocessing.util.spawnv_passfds = spawn_helper  # once for each command; the tests' own starts cold, once
    run(what, path)


def serve(connection: socket.socket) -> Start:
    """Forks what it is asked for, until its owner has ended; returns in each fork, as that process."""
    os.chdir("/")
    prctl(NAME, b"warm")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    nothing = os.open(os.devnull, os.O_RDWR)
    leave_open([(nothing, 0), (nothing, 1), (connection.fileno(), connection.fileno())])
    while True:
        message, descriptors, *_ = socket.recv_fds(connection, 1 << 20, 250)
        if not message:
            os._exit(0)
        reader, writer = os.pipe()
        if (between := os.fork()) == 0:
            if child := os.fork():
                os.write(writer, str(child).encode())
                os._exit(0)
            what: Start = pickle.loads(message)
            become(what, descriptors)
            return what
        os.waitpid(between, 0)
        connection.send(os.read(reader, 20))
        for each in (reader, writer, *descriptors):
            os.close(each)


def leave_open(descriptors: Sequence[tuple[int, int]]) -> None:
    """Gives each descriptor its number, and closes all others but standard error's."""
    free = max(number for _, number in descriptors) + 1
    moved = [(fcntl.fcntl(each, fcntl.F_DUPFD, max(free, 3)), number) for each, number in descriptors]
    for each, number in moved:
        os.dup2(each, number)
    kept = {2, *(number for _, number in descriptors)}
    for each in {int(path.name) for path in Path("/proc/self/fd").iterdir()} - kept:
        with contextlib.suppress(OSError):  # what the listing itself had open
            os.close(each)


def become(what: Start, descriptors: Sequence[int]) -> None:
    """Makes this fork the process that was asked for."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    leave_open(list(zip(descriptors, what.descriptors, strict=True)))
    os.chdir(what.folder)
    os.umask(what.umask)
    if what.session:
        os.setsid()
    if what.group >= 0:
        os.setpgid(0, what.group)
    os.environ.clear()
    os.environ.update(what.environ)
    time.tzset()
    prctl(NAME, (what.module or what.code.split()[1]).rpartition(".")[2].encode()[:15])


def run(what: Start, path: list[str]) -> None:
    """Runs the program as Python does, in a module `__main__` of its own."""
    asked, _, handling = what.environ.get("PYTHONIOENCODING", "").partition(":")
    encoding, errors = asked or sys.stdout.encoding, handling or sys.stdout.errors
    sys.stdin = sys.__stdin__ = open(0, encoding=encoding, errors=errors, closefd=False)  # type: ignore[misc]  # noqa: SIM115
    sys.stdout = sys.__stdout__ = open(1, "w", encoding=encoding, errors=errors, closefd=False)  # type: ignore[misc]  # noqa: SIM115
    sys.stderr = sys.__stderr__ = open(2, "w", 1, encoding, "backslashreplace", closefd=False)  # type: ignore[misc]  # noqa: SIM115
    first = [] if what.safe or what.environ.get("PYTHONSAFEPATH") else [str(Path.cwd()) if what.module else ""]
    sys.argv, sys.path[:] = what.argv, [*first, *search_path(what.environ), *path]
    sys.modules.pop("sitecustomize", None)
    importlib.invalidate_caches()
    sys.path_importer_cache.clear()
    with contextlib.suppress(ModuleNotFoundError):
        importlib.import_module("sitecustomize")  # faults are injected there
    sys.modules["__main__"] = main = ModuleType("__main__")
    try:
        if what.module:
            runpy._run_module_as_main(what.module)  # type: ignore[attr-defined]
        else:
            exec(what.code, main.__dict__)
        ended.append(0)
    except SystemExit as stop:
        if isinstance(stop.code, int | None):
            ended.append(stop.code or 0)
        raise


ended: list[int] = []


def leave() -> None:
    """Ends a command that has an exit code when nothing but Python's tidying up, half a second of it, is left."""
    if ended:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(ended[0])
