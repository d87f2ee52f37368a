"""`pack.json`: with what a run trains together, so that it can go on bit for bit, in whatever company.

Where matrices lie side by side, their shapes decide in which order a product is summed up, and that decides the
last bits. So a run that began as one lane of a pack keeps its record: where the neighbours that it began with have
ended, or train elsewhere, lanes of the same shape stand in for them.
"""

import dataclasses
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from mnist_exp.config import Config, schema
from mnist_exp.config.schema import Kind
from mnist_exp.disk import records, trust
from mnist_exp.disk.files import write_json
from mnist_exp.errors import CheckpointError

FILE = "pack.json"
FORMAT = 1
OWN = schema.of(Kind.LANE)
"""What decides the shape of a lane and how its update is calculated."""


@final
@dataclass(frozen=True, kw_only=True)
class PackRecord:
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

    def placeholder(self, lane: int, config: Config) -> Config:
        """*config* in the shape of *lane*, for one that is not there."""
        return dataclasses.replace(config, **self.lanes[lane])


def begin(configs: Sequence[Config], folders: Sequence[Path]) -> list[PackRecord]:
    """Makes a pack of runs that begin together, in this order, and writes each its record."""
    pack, lanes = secrets.token_hex(8), [_own(config) for config in configs]
    records_ = [
        PackRecord(pack=pack, lane=lane, lanes=lanes, first=os.path.relpath(folders[0], folder))
        for lane, folder in enumerate(folders)
    ]
    for record, folder in reversed(list(zip(records_, folders, strict=True))):
        write_json(folder / FILE, dataclasses.asdict(record))
    return records_


def read(folder: Path) -> PackRecord | None:
    """The record of the run in *folder*; None where it trains alone.

    Raises:
        CheckpointError: the file is damaged or of a newer format.
        ConfigError: it is from elsewhere and would call what is not named; see `trust`.
    """
    record = _read(folder)
    first = _read(folder / record.first) if record else None
    return record if record and first and first.pack == record.pack else None


def copy(source: Path, folder: Path) -> None:
    """Gives the run in *folder* the record that the one in *source* has trained in, with placeholders for all neighbours.

    Raises:
        CheckpointError, ConfigError: as `read`.
    """
    if record := _read(source):
        write_json(folder / FILE, dataclasses.asdict(dataclasses.replace(record, first=".")))


def _read(folder: Path) -> PackRecord | None:
    path = folder / FILE
    if not path.exists():
        return None
    record = records.read(PackRecord, path, FORMAT, CheckpointError, "")
    if any(lane.keys() != set(OWN) for lane in record.lanes) or not 0 <= record.lane < len(record.lanes):
        raise CheckpointError(f"{path} is damaged: it does not describe the lanes of a pack.")
    trust.check({"lanes": record.lanes}, folder)
    return record


def _own(config: Config) -> dict[str, Any]:
    return {key: getattr(config, key) for key in OWN}
