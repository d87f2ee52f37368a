"""`pack.json`, the pack record of a run: the shapes of all lanes, so that it can resume exactly without the others.

The shapes of stacked matrices decide the order in which a product is summed up, and so the last bits. A run that began
as a lane of a pack keeps the record: placeholders of the same shape replace lanes that have ended, or train elsewhere.
Lanes that a search has pruned leave, so that the others do not wait for them; when they did is in the record, too.
"""

import dataclasses
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from mnist_exp.config import Config, schema
from mnist_exp.config.schema import Kind
from mnist_exp.disk import records, trust
from mnist_exp.disk.files import write_json
from mnist_exp.disk.layout import RunFolder
from mnist_exp.errors import CheckpointError

OWN = schema.of(Kind.LANE)
"""The settings that decide the shape of a lane and the calculation of its update."""
ALONE = f"Delete {RunFolder.lanes}: the run goes on alone, to other last bits."


@final
@dataclass(frozen=True, kw_only=True)
class PackRecord:
    """What `pack.json` holds."""

    pack: str
    """Id of the pack."""
    lane: int
    """Its position in the pack, from 0."""
    lanes: list[dict[str, Any]]
    """The settings of each lane that decide its shape and the calculation of its update."""
    first: str
    """Relative path to the folder of the first lane. Its record is written last: without it there is no pack."""
    left: dict[str, int] = field(default_factory=dict)
    """Lanes that left the pack, each with the epochs that they had trained."""
    format: int = 1

    @property
    def together(self) -> str:
        """The same for runs that train together: its pack and who has left it, which not all know after a kill."""
        return f"{self.pack} {sorted(self.left.items())}"

    def present(self, epoch: int) -> list[int]:
        """The lanes that train on after so many epochs."""
        return [lane for lane in range(len(self.lanes)) if self.left.get(str(lane), epoch + 1) > epoch]

    def position(self, epoch: int) -> int:
        """That of its own lane among these."""
        return self.present(epoch).index(self.lane)

    def fits(self, config: Config) -> bool:
        """Whether *config* is still that of the lane."""
        return self.lanes[self.lane] == _own(config)

    def placeholder(self, lane: int, config: Config) -> Config:
        """*config* in the shape of *lane*."""
        return dataclasses.replace(config, **self.lanes[lane])


def begin(configs: Sequence[Config], folders: Sequence[Path]) -> list[PackRecord]:
    """Makes a pack of new runs, with lanes in this order, and writes the record of each."""
    pack, lanes = secrets.token_hex(8), [_own(config) for config in configs]
    firsts = [os.path.relpath(folders[0], folder) for folder in folders]
    members = [PackRecord(pack=pack, lane=lane, lanes=lanes, first=first) for lane, first in enumerate(firsts)]
    for record, folder in reversed(list(zip(members, folders, strict=True))):
        write_json(RunFolder(folder).lanes, dataclasses.asdict(record))
    return members


def leave(record: PackRecord, lanes: Sequence[int], epoch: int, folder: Path) -> PackRecord:
    """Writes into *folder*, whose *record* it is, that other *lanes* of its pack have left after *epoch*."""
    after = dataclasses.replace(record, left=record.left | {str(lane): epoch for lane in lanes})
    write_json(RunFolder(folder).lanes, dataclasses.asdict(after))
    return after


def read(folder: Path) -> PackRecord | None:
    """The record of the run in *folder*; None if it trains alone.

    Raises:
        CheckpointError: the file is damaged or of a newer format.
        ConfigError: the folder is foreign and names code that `trust` refuses.
    """
    record = _read(folder)
    try:
        first = _read(folder / record.first) if record else None
    except OSError as error:
        raise CheckpointError(f"{RunFolder(folder).lanes} is damaged: {error.strerror}.", ALONE) from error
    return record if record and first and first.pack == record.pack else None


def copy(source: Path, folder: Path) -> None:
    """Copies the pack record of the run in *source* to *folder*, with placeholders for all other lanes.

    Raises:
        CheckpointError, ConfigError: as `read`.
    """
    if record := _read(source):
        write_json(RunFolder(folder).lanes, dataclasses.asdict(dataclasses.replace(record, first=".")))


def _read(folder: Path) -> PackRecord | None:
    path = RunFolder(folder).lanes
    if not path.exists():
        return None
    record = records.read(PackRecord, path, "pack", CheckpointError)
    whole = 0 <= record.lane < len(record.lanes) and str(record.lane) not in record.left
    if not whole or not all(map(_is_lane, record.lanes)):
        raise CheckpointError(f"{path} is damaged: it does not describe the lanes of a pack.", ALONE)
    trust.check({"lanes": record.lanes}, folder)
    return record


def _is_lane(lane: dict[str, Any]) -> bool:
    """Whether *lane* has the settings of one, each of its type, and says what its parts are made by."""
    kinds = {field.name: field.type for field in dataclasses.fields(Config) if field.name in OWN}
    fits = lane.keys() == kinds.keys() and all(records.fits(lane[key], kind) for key, kind in kinds.items())
    return fits and all("_target_" in part for part in lane.values() if isinstance(part, dict))


def _own(config: Config) -> dict[str, Any]:
    return {key: getattr(config, key) for key in OWN}
