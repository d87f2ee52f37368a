"""In-memory PyTorch: all images in one tensor, autograd, Adam as it comes. What a fast hand-written script does."""

import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.peers.settings import RAW, TRAIN, Settings, from_argv, write_seconds


def read(root: str, part: str) -> tuple[Tensor, Tensor]:
    """Standardised images (n, 784) and labels (n,) of `train` or `t10k`."""
    raw = Path(root) / RAW
    pixels = torch.frombuffer(bytearray((raw / f"{part}-images-idx3-ubyte").read_bytes()), dtype=torch.uint8)[16:]
    labels = torch.frombuffer(bytearray((raw / f"{part}-labels-idx1-ubyte").read_bytes()), dtype=torch.uint8)[8:]
    return pixels.view(-1, 784).float().div_(255).sub_(0.1307).div_(0.3081), labels.long()


def network(hidden: int) -> nn.Module:
    """784-hidden-10."""
    return nn.Sequential(nn.Linear(784, hidden), nn.ReLU(), nn.Linear(hidden, 10))


def step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> Tensor:
    """One training step; returns its loss."""
    optimizer.zero_grad()
    loss = cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    return loss.detach()


def epochs(hidden: int, images: Tensor, labels: Tensor, batch_size: int = 64) -> Callable[[], float]:
    """A function that trains one more epoch, nothing else, and returns its seconds."""
    model = network(hidden).to(images.device)
    optimizer = torch.optim.Adam(model.parameters())

    def epoch() -> float:
        began = time.perf_counter()
        total = torch.zeros((), device=images.device)
        for rows in torch.randperm(len(images), device=images.device).split(batch_size):
            total += step(model, optimizer, images[rows], labels[rows])
        total.item()  # waits for a GPU
        return time.perf_counter() - began

    return epoch


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of hits, 0 to 1."""
    hits = 0
    for x, y in zip(images.split(1000), labels.split(1000), strict=True):
        hits += int((model(x).argmax(1) == y).sum())
    return hits / len(labels)


def train(settings: Settings, images: int = TRAIN) -> tuple[list[float], float]:
    """Trains on the first *images*; returns each epoch's seconds and the last test accuracy, 0 to 1."""
    torch.manual_seed(settings.seed)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    x, y = (tensor[:images] for tensor in read(settings.root, "train"))
    test = read(settings.root, "t10k")
    model = network(settings.hidden)
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.lr)
    seconds, score = [], 0.0
    for epoch in range(settings.epochs):
        began, total = time.perf_counter(), torch.zeros(())
        batches = torch.randperm(len(x)).split(settings.batch_size)[: settings.steps or None]
        for rows in batches:
            total += step(model, optimizer, x[rows], y[rows])
        score = accuracy(model, *test)
        seconds.append(time.perf_counter() - began)
        print(f"Epoch {epoch + 1}, Train Loss: {total.item() / len(batches):.4f}, test {score:.4f}")  # noqa: T201
    return seconds, score


if __name__ == "__main__":
    write_seconds(train(from_argv())[0])
