"""What a folder of pictures by class says of itself, for conf/data/folder.yaml: train/<class>/ and test/<class>/."""

from pathlib import Path
from typing import Any

from mnist_exp.errors import ConfigError

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def pictures(root: Path, part: str) -> dict[str, int]:
    """How many pictures each class has in *part*, `train` or `test`; classes in the order of their names.

    Raises:
        ConfigError: there is no such folder, no classes, one to train on, or one without pictures; or pictures are
            elsewhere in it.
    """
    folder = root / part
    layout = (
        "Pictures by class are in <folder>/train/<class>/*.png and <folder>/test/<class>/*.png; data.root=<folder>."
    )
    if not folder.is_dir():
        raise ConfigError(f"There is no folder {folder}.", layout)
    if astray := [*files(folder), *(file for each in folder.glob("*/[!.]*/") for file in files(each))]:
        raise ConfigError(f"{astray[0]} is not directly in the folder of a class.", layout)
    classes = sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
    if len(classes) < (2 if part == "train" else 1):
        what = f"only the class {classes[0].name!r}" if classes else "no folders of classes"
        raise ConfigError(f"{folder} has {what}.", layout)
    counts = {path.name: len(files(path)) for path in classes}
    if empty := [name for name, count in counts.items() if not count]:
        raise ConfigError(f"{folder / empty[0]} has no pictures.", f"Known are {', '.join(SUFFIXES)}.")
    return counts


def files(folder: Path) -> list[Path]:
    """The pictures in *folder*, in the order of their names; none where there is no such folder."""
    return sorted(file for file in folder.glob("*") if file.suffix.lower() in SUFFIXES)


def strangers(folder: Path) -> list[Path]:
    """The files in *folder*, and below it, that are no pictures by their suffix; hidden ones are nobody's business."""
    files = (path for path in folder.rglob("[!.]*") if path.is_file())
    return [path for path in files if path.suffix.lower() not in SUFFIXES]


def described(root: str | None, what: str) -> Any:
    """The setting *what* of `Data` for the pictures in *root*: the value in conf/data/folder.yaml.

    Hydra asks while it composes, when what was typed is not known yet: without *root* the values stand for none.

    Raises:
        ConfigError: as `pictures`.
    """
    if not root:
        return {"classes": None, "val_size": 0}.get(what, 2)
    folder = Path(root).expanduser()
    train = pictures(folder, "train")
    total = sum(train.values())
    return {
        "classes": list(train),
        "num_classes": len(train),
        "train_images": total,
        "test_images": sum(pictures(folder, "test").values()),
        "val_size": min(5000, total // 10),
    }[what]
