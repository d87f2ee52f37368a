"""Makes the N-th call that changes a disk fail, once or for ever, or kill its process (after SQLite's own tests)."""

import io
import os
import signal
from pathlib import Path
from typing import Any

CALLS = ("open", "mkdir", "fsync", "replace", "rename", "link", "unlink")


class Nth:
    """A context that counts this process's calls that write below *root*, and makes the *n*-th fail.

    Args:
        n: The number of the call, from 1; 0: none fails, they are only counted.
        error: The `errno` of the failure; None: the process is killed instead.
        forever: Whether all later calls fail, too.
    """

    def __init__(self, root: Path, n: int, error: int | None = None, forever: bool = False) -> None:
        self.root, self.n, self.error, self.forever = str(root), n, error, forever
        self.count = 0
        self.real: dict[str, Any] = {}

    def __enter__(self) -> "Nth":
        self.real = {name: getattr(os, name) for name in CALLS}
        for name in CALLS:
            setattr(os, name, self._wrapped(name))
        self.io_open = io.open
        io.open = self._open  # type: ignore[assignment]  # what Path.open calls
        return self

    def __exit__(self, *error: object) -> None:
        for name, call in self.real.items():
            setattr(os, name, call)
        io.open = self.io_open

    @property
    def hit(self) -> bool:
        return 0 < self.n <= self.count

    def strike(self, path: Any) -> None:
        """Counts a call for *path*; fails if it is the *n*-th."""
        if isinstance(path, int):
            path = Path(f"/proc/self/fd/{path}").readlink()
        if not str(path).startswith(self.root):
            return
        self.count += 1
        if self.count == self.n or (self.forever and self.hit):
            if self.error is None:
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(self.error, os.strerror(self.error), str(path))

    def _wrapped(self, name: str) -> Any:
        real = self.real[name]

        def call(path: Any, *arguments: Any, **settings: Any) -> Any:
            flags = arguments[0] if name == "open" and arguments else 0
            if name != "open" or flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                self.strike(Path(path).absolute() if isinstance(path, (str, os.PathLike)) else path)
            return real(path, *arguments, **settings)

        return call

    def _open(self, file: Any, mode: str = "r", *arguments: Any, **settings: Any) -> Any:
        if not set(mode) & set("wxa+") or isinstance(file, int):
            return self.io_open(file, mode, *arguments, **settings)
        path = Path(file).absolute()
        self.strike(path)
        opened = self.io_open(file, mode, *arguments, **settings)
        return _Counted(opened, self, path) if str(path).startswith(self.root) else opened


class _Counted:
    """A file that counts its writes; a failing one has written half."""

    def __init__(self, file: Any, nth: Nth, path: Path) -> None:
        self.file, self.nth, self.path = file, nth, path

    def write(self, data: Any) -> Any:
        if self.nth.n == self.nth.count + 1:  # this one fails
            self.file.write(data[: len(data) // 2])
            self.file.flush()
        self.nth.strike(self.path)
        return self.file.write(data)

    def __enter__(self) -> "_Counted":
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)
