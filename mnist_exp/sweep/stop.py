"""Ctrl-C and SIGTERM of a sweep, on this machine or on others."""

import signal
from typing import Any, final

from mnist_exp.errors import Interrupted

STOP_GRACE = 30.0  # seconds for running jobs to finish their batch and save after Ctrl-C


@final
class Stop:
    """While it lasts, Ctrl-C and SIGTERM are noted; the second one ends everything at once.

    Raises:
        Interrupted: at its end, if one came, also where it was handled meanwhile.
    """

    signal = 0

    def __enter__(self) -> "Stop":
        self.before = {n: signal.signal(n, self.note) for n in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        if self.signal and (error is None or isinstance(error, KeyboardInterrupt)):
            raise Interrupted("The sweep was stopped.", signal=self.signal) from None

    def note(self, number: int, frame: Any) -> None:
        again, self.signal = self.signal, number
        if again:
            raise KeyboardInterrupt
