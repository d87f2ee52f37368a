"""The floor: the five matrix products of a training step and nothing else, into preallocated memory (oneDNN allocates
its own).

For 784-H-10 and a batch X of 64: X W1ᵀ, A W2ᵀ, Dᵀ A, D W2, Gᵀ X. No loss, no optimiser, no data. The faster of torch's
libraries computes the two large ones; in the plain floor `torch.mm` computes all.
"""

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import torch

from mnist_exp.engine.products import ONEDNN, fastest, onednn

BATCH, PIXELS, DIGITS = 64, 784, 10


def products(hidden: int, device: str = "cpu", plain: bool = False) -> Callable[[], None]:
    """A function that computes the five products of a step once."""
    images, delta = torch.randn(BATCH, PIXELS, device=device), torch.randn(BATCH, DIGITS, device=device)
    first, second = torch.randn(hidden, PIXELS, device=device), torch.randn(DIGITS, hidden, device=device)
    output, back = torch.empty(BATCH, hidden, device=device), torch.empty(BATCH, hidden, device=device)
    logits, first_grad, second_grad = torch.empty_like(delta), torch.empty_like(first), torch.empty_like(second)

    def mm(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> None:
        torch.mm(a, b, out=out)

    def into_new(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> None:
        onednn(a, b)  # it takes no out

    large = into_new if fastest(first) is ONEDNN and not plain else mm

    def step() -> None:
        large(images, first.t(), output)
        torch.mm(output, second.t(), out=logits)
        torch.mm(delta.t(), output, out=second_grad)
        torch.mm(delta, second, out=back)
        large(back.t(), images, first_grad)

    return step


def seconds(hidden: int, steps: int, threads: int) -> float:
    """Seconds for *steps* floors in this process, after some as warm-up."""
    torch.set_num_threads(threads)
    step = products(hidden)
    for _ in range(steps // 10 + 1):
        step()
    began = time.perf_counter()
    for _ in range(steps):
        step()
    return time.perf_counter() - began


class Machine:
    """The floor of many steps on all cores: one process with all threads, or one single-threaded process a core."""

    def __init__(self, cores: int) -> None:
        self.cores = cores
        self.pool = ProcessPoolExecutor(cores, mp_context=multiprocessing.get_context("spawn"))

    def __enter__(self) -> "Machine":
        return self

    def __exit__(self, *error: object) -> None:
        self.pool.shutdown()

    def threads(self, hidden: int, steps: int) -> float:
        """Seconds a step of one process on all cores."""
        return self.pool.submit(seconds, hidden, steps, self.cores).result() / steps

    def processes(self, hidden: int, steps: int) -> float:
        """Seconds a step of all processes together, one process on each core."""
        jobs = [self.pool.submit(seconds, hidden, steps, 1) for _ in range(self.cores)]
        return max(job.result() for job in jobs) / steps / self.cores
