"""Settings of the whole process while it trains: torch's, and what signals do."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

import torch

from mnist_exp.config import Config, Precision
from mnist_exp.engine.events import Control


def set_up_torch(config: Config, device: torch.device, threads: int) -> None:
    """Sets threads and arithmetic for training *config* on *device*."""
    torch.set_flush_denormal(True)  # Adam's moments of unlit pixels become denormal and slow it down
    torch.set_num_threads(threads)
    if device.type == "cuda":
        exact = config.precision is Precision.fp32
        torch.set_float32_matmul_precision("highest" if exact else "high")
        torch.backends.cudnn.allow_tf32 = not exact  # convolutions: torch's own default is tf32


@contextlib.contextmanager
def signals(control: Control) -> Iterator[None]:
    """Inside, the first Ctrl-C or SIGTERM asks the loop to stop; a second Ctrl-C stops at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, frame: Any) -> None:
        if control.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        control.signal = number

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
