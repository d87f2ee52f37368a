"""The beginner's script: torchvision's MNIST, `DataLoader`, an epoch loop."""

import time
from itertools import islice

import torch
from torch import nn
from torch.utils.data import DataLoader, Subset

from benchmarks.peers import vision
from benchmarks.peers.settings import TRAIN, Settings, from_argv, write_seconds


def train(settings: Settings) -> list[float]:
    """Trains and prints; returns the seconds of each epoch with its test."""
    transform = vision.transform()
    from torchvision import datasets

    torch.manual_seed(settings.seed)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    images = datasets.MNIST(settings.root, train=True, download=True, transform=transform)
    train_loader = DataLoader(Subset(images, range(TRAIN)), batch_size=settings.batch_size, shuffle=True)
    test_loader = DataLoader(
        datasets.MNIST(settings.root, train=False, download=True, transform=transform), batch_size=1000
    )
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, settings.hidden), nn.ReLU(), nn.Linear(settings.hidden, 10))
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.lr)
    seconds = []
    for epoch in range(settings.epochs):
        began = time.perf_counter()
        model.train()
        running = 0.0
        for x, y in islice(train_loader, settings.steps or None):
            optimizer.zero_grad()
            loss = criterion(model(x), y)
            loss.backward()
            optimizer.step()
            running += loss.item()
        model.eval()
        test_loss, hits, seen = 0.0, 0, 0
        with torch.no_grad():
            for x, y in islice(test_loader, 1 if settings.steps else None):
                logits = model(x)
                test_loss += criterion(logits, y).item() * len(y)
                hits += int((logits.argmax(1) == y).sum())
                seen += len(y)
        seconds.append(time.perf_counter() - began)
        steps = settings.steps or len(train_loader)
        losses = f"Train Loss: {running / steps:.4f}, Test Loss: {test_loss / seen:.4f}"
        print(f"Epoch {epoch + 1}, {losses}, test {hits / seen:.4f}")  # noqa: T201
    return seconds


if __name__ == "__main__":
    write_seconds(train(from_argv()))
