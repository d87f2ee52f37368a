"""`pack.json`: with what a run trains together, so that it can go on bit for bit, in whatever company.

Where matrices lie side by side, their shapes decide in which order a product is summed up, and that decides the
last bits. So a run that began as one lane of a pack keeps its place: where the neighbours that it began with have
ended, or train elsewhere, lanes of the same shape stand in for them.
"""

import dataclasses
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from mnist_exp.config import Config
from mnist_exp.disk import records, trust
from mnist_exp.disk.files import write_json
from mnist_exp.errors import CheckpointError

FILE = "pack.json"
FORMAT = 1
OWN = ("hidden", "lr", "model", "optimizer")
"""What decides the shape of a lane and how its update is calculated."""


@final
@dataclass(frozen=True, kw_only=True)
class Place:
    """What `pack.json` holds."""

    pack: str
    """The same for all lanes of a pack, and for no others."""
    lane: int
    lanes: list[dict[str, Any]]
    """Of each lane what `OWN` names."""
    first: str
    """From this lane's folder to that of the first, whose file is written last: without it there is no pack."""
    format: int = FORMAT

    def fits(self, config: Config) -> bool:
        """Whether *config* is still that of the lane."""
        return self.lanes[self.lane] == _own(config)

    def stand_in(self, lane: int, config: Config) -> Config:
        """*config* in the shape of *lane*, for one that is not there."""
        return dataclasses.replace(config, **self.lanes[lane])


def begin(configs: Sequence[Config], folders: Sequence[Path]) -> list[Place]:
    """Makes a pack of runs that begin together, in this order, and writes each its place."""
    pack, lanes = secrets.token_hex(8), [_own(config) for config in configs]
    places = [
        Place(pack=pack, lane=lane, lanes=lanes, first=os.path.relpath(folders[0], folder))
        for lane, folder in enumerate(folders)
    ]
    for place, folder in reversed(list(zip(places, folders, strict=True))):
        write_json(folder / FILE, dataclasses.asdict(place))
    return places


def read(folder: Path) -> Place | None:
    """The place of the run in *folder*; None where it trains alone.

    Raises:
        CheckpointError: the file is damaged or of a newer format.
        ConfigError: it is from elsewhere and would call what is not named; see `trust`.
    """
    place = _read(folder)
    first = _read(folder / place.first) if place else None
    return place if place and first and first.pack == place.pack else None


def lend(source: Path, folder: Path) -> None:
    """Gives the run in *folder* the place that the one in *source* has trained in, with stand-ins for all neighbours.

    Raises:
        CheckpointError, ConfigError: as `read`.
    """
    if place := _read(source):
        write_json(folder / FILE, dataclasses.asdict(dataclasses.replace(place, first=".")))


def _read(folder: Path) -> Place | None:
    path = folder / FILE
    if not path.exists():
        return None
    place = records.read(Place, path, FORMAT, CheckpointError, "")
    if any(lane.keys() != set(OWN) for lane in place.lanes) or not 0 <= place.lane < len(place.lanes):
        raise CheckpointError(f"{path} is damaged: it does not describe the lanes of a pack.")
    trust.check({"lanes": place.lanes}, folder)
    return place


def _own(config: Config) -> dict[str, Any]:
    return {key: getattr(config, key) for key in OWN}
