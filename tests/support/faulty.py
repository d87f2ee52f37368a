"""A model that fails on command, for the fault tests."""

import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn


class Faulty(nn.Module):
    """A linear model that fails as *mode* says after *after* training batches; `start`: when a worker builds it.

    `wait` waits for a file called `go`.
    """

    def __init__(self, mode: str = "fine", after: int = 40) -> None:
        super().__init__()
        self.mode, self.after, self.batches = mode, after, 0
        if mode == "start" and multiprocessing.parent_process():
            os.kill(os.getpid(), signal.SIGKILL)
        self.layer = nn.Linear(784, 10)

    def forward(self, images: Tensor) -> Tensor:
        self.batches += self.training
        logits: Tensor = self.layer(images.flatten(1))
        if self.batches > self.after and self.training:
            if self.mode == "raise":
                raise RuntimeError("boom")
            if self.mode == "exit":
                sys.exit(3)
            if self.mode == "sigkill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.mode == "sigterm":
                os.kill(os.getpid(), signal.SIGTERM)
                Path("steps").write_text(str(self.batches - self.after))
            if self.mode == "hang":
                Path("hangs").touch()
                time.sleep(600)
            while self.mode == "wait" and not Path("go").exists():
                time.sleep(0.05)
            if self.mode == "memory":
                torch.empty(2**50)  # four petabytes
            if self.mode == "diverge":
                return logits * float("nan")
        return logits
