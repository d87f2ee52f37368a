"""What the peers share: settings, sizes and the folder of the images."""

import sys
from dataclasses import dataclass, fields
from pathlib import Path

RAW = "MNIST/raw"  # where torchvision keeps the IDX files below its root
TRAIN, VAL = 55_000, 5_000  # of 60,000, as in mnist_exp and lightning-hydra-template


@dataclass
class Settings:
    """The keys of `mnist_exp.train` that the benchmarks vary."""

    hidden: int = 128
    lr: float = 1e-3
    epochs: int = 10
    batch_size: int = 64
    seed: int = 0
    steps: int = 0
    """Steps an epoch; 0: all. For scaled measurements."""
    threads: int = 0
    """CPU threads; 0: torch's default."""
    root: str = "data"
    """torchvision's root folder."""


def from_argv() -> Settings:
    """Settings from `key=value` arguments."""
    kinds = {f.name: f.type for f in fields(Settings)}
    given = dict(argument.split("=", 1) for argument in sys.argv[1:])
    return Settings(**{key: kinds[key](value) for key, value in given.items()})  # type: ignore[operator]


def link_images(images: Path, root: Path) -> None:
    """Links the IDX files in *images* to where torchvision expects them below *root*."""
    raw = root / RAW
    raw.mkdir(parents=True)
    for file in images.glob("*-ubyte"):
        (raw / file.name).symlink_to(file.resolve())


def write_seconds(seconds: list[float]) -> None:
    """Writes the seconds of the last epoch to `seconds.txt`, for the parent process."""
    Path("seconds.txt").write_text(f"{seconds[-1]}\n", encoding="utf-8")
