"""Which setting is best, and which run stands for it: the one rule of reports, names and registered models.

A setting is what runs have in common but for their seed. The best one has the highest mean validation accuracy over its
seeds, and its median run stands for it: the luckiest run would promise too much. The test set chooses nothing.
"""

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar, final

from mnist_exp.config import compact
from mnist_exp.config.overrides import split
from mnist_exp.disk import ledger
from mnist_exp.disk.ledger import Ledger

FIELDS = (
    *("number", "name", "state", "reason", "epoch", "seconds", "cpu_seconds", "parameters", "started", "ended"),
    *("folder", "overrides", "commit", "sweep", "run_id", "experiment_id", "dataset"),
)
"""What a table of runs says of a run beside its settings: no setting has such a name."""

LOST = ("failed", "killed", "damaged")
"""States of runs that will not finish by themselves."""

DIGITS = 12  # of accuracies that count: means of equal ones may differ in the last bits

ABSENT = object()
"""In the place of a setting that a run does not have, which is not null."""

T = TypeVar("T")


@final
@dataclass(frozen=True)
class Run:
    """What has to be known of a run to compare it with others."""

    at: Any
    """Where its caller finds it: its folder, or its index in a table."""
    state: str
    settings: Mapping[str, Any]
    """See `settings`."""
    metrics: Mapping[str, float]
    """Those that were measured, such as `final/val_accuracy`."""
    digest: str = ""
    """Of its images; empty: unknown."""

    @property
    def data(self) -> tuple[str, str]:
        """Name and digest of its dataset, each empty where it is unknown."""
        return str(self.settings.get("data", "")), self.digest


@final
@dataclass(frozen=True)
class Setting:
    """Runs that differ in nothing but their seed."""

    runs: list[Run]
    """All of them, in their order."""
    seeds: list[list[Run]]
    """The finished runs of each seed that has any: however many they are, they count as one."""
    failed: int
    """Seeds of which a run was lost and none finished."""

    @property
    def split(self) -> str:
        """The split that decides: `val`, or `train` where none of its runs has validation."""
        validated = any("final/val_accuracy" in run.metrics for seed in self.seeds for run in seed)
        return "val" if validated else "train"

    @property
    def median(self) -> Run | None:
        """The run that stands for it, if any finished: of the middle seed; of two in the middle the lower one."""
        if not self.seeds:
            return None
        middle = _median(self.seeds, lambda seed: _worth([seed], self.split))
        return _median(middle, lambda run: _worth([[run]], self.split))

    @property
    def order(self) -> tuple[bool, bool, bool, float, float]:
        """What it is sorted by, the best one first.

        Settings with validation come before those without, those with a finished run before those with none, those
        without a failed seed before those with one: the only seed of five that survived may be the lucky one. Then the
        higher mean accuracy comes first, and of equal ones the lower mean loss.
        """
        accuracy, minus_loss = _worth(self.seeds, self.split)
        return self.split != "val", not self.seeds, self.failed > 0, -accuracy, -minus_loss

    def over_seeds(self, metric: str) -> list[float]:
        """One value for each seed that has *metric*: the mean of its finished runs."""
        return _values(self.seeds, metric)


@final
@dataclass(frozen=True)
class Ranking:
    """The runs of one dataset, compared."""

    data: str
    """What tells the dataset from the others."""
    by: list[str]
    """The keys that tell settings apart; see `keys`."""
    settings: list[Setting]
    """Best first."""

    @property
    def best(self) -> Run | None:
        """The median run of the best setting; None if nothing finished."""
        return self.settings[0].median


def of_folders(folders: Sequence[Path]) -> list[Ranking]:
    """The runs in *folders*, compared: one ranking for each dataset."""
    return rank([read(folder) for folder in folders])


def of_sweep(folder: Path, keys: Sequence[str], points: Sequence[list[str]]) -> list[Ranking]:
    """The runs of the sweep in *folder*, compared: one ranking for each dataset.

    Args:
        keys: As in `Plan`, like *points*.
    """
    return rank([read(folder / str(i), point) for i, point in enumerate(points)], swept(keys, points))


def read(folder: Path, point: Sequence[str] = ()) -> Run:
    """The run in *folder*; *point* is what its sweep planned."""
    entry, state, _ = ledger.status(folder)
    summary, dataset = (entry.summary, entry.dataset) if entry else ({}, {})
    return Run(folder, state, settings(entry, point), summary, dataset.get("digest", ""))


def rank(runs: Sequence[Run], swept: Sequence[str] | None = None) -> list[Ranking]:
    """Compares *runs*, those of each dataset among themselves.

    Args:
        swept: See `keys`.
    """
    found = []
    for data, same in datasets(runs).items():
        by = keys(same, swept)
        found.append(Ranking(data, by, ordered(same, by)))
    return found


def ordered(runs: Sequence[Run], by: Sequence[str]) -> list[Setting]:
    """The settings of *runs*, which the keys *by* tell apart, best first."""
    groups: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        groups.setdefault(_point(run, by), []).append(run)
    return sorted(map(_setting, groups.values()), key=lambda setting: setting.order)


def keys(runs: Sequence[Run], swept: Sequence[str] | None = None) -> list[str]:
    """The settings that tell *runs* on one dataset apart, without the seed.

    In a sweep, what was typed; what follows from that is left out. More may vary: points that were added later, or
    runs that went on with other settings. A run that does not have a setting, as a planned one, differs in nothing by
    that.

    Args:
        swept: What a sweep varies, see `swept`; None: the runs are not those of a sweep.
    """
    values: dict[str, set[Any]] = {}
    for run in runs:
        for key, value in run.settings.items():
            values.setdefault(key, set()).add(value)
    for key in ("seed", "data"):
        values.pop(key, None)
    differ = [key for key, several in values.items() if len(several) > 1]
    if swept is None:
        return differ
    found = [key for key in dict.fromkeys(swept) if key in values]
    for key in differ:
        if key not in found and _varies(runs, key, found):
            found.append(key)
    return found


def swept(keys: Sequence[str], points: Sequence[list[str]]) -> list[str]:
    """What a sweep varies: its *keys*, and those of the overrides that not all of its *points* share."""
    shared = set.intersection(*(set(point) for point in points if point)) if any(points) else set()
    return [*keys, *(key for point in points for key in chosen([o for o in point if o not in shared]))]


def datasets(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """The runs of each dataset, by its name, and its digest where another one has that name.

    What is not known of a run, as of a planned one, tells it from none: it joins the first dataset that it fits.
    """
    kinds: list[tuple[str, str]] = []
    for pair in sorted(dict.fromkeys(run.data for run in runs), key=lambda pair: pair.count("")):
        if not any(_fits(pair, kind) for kind in kinds):
            kinds.append(pair)
    found: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        kind = run.data if run.data in kinds else next(kind for kind in kinds if _fits(run.data, kind))
        found.setdefault(kind, []).append(run)
    names = [name for name, _ in found]
    return {
        name if name and names.count(name) == 1 else "-".join(filter(None, (name, digest))): same
        for (name, digest), same in found.items()
    }


def settings(entry: Ledger | None, point: Sequence[str] = ()) -> dict[str, Any]:
    """The settings of a run, typed, its seed among them: its params, and over them its *point* of a sweep, as typed.

    Args:
        entry: None for a run that was never started, or whose ledger is damaged: then only its point is known.
    """
    found = {key: typed(value) for key, value in entry.params.items()} if entry else {}
    found |= chosen(point)
    if entry:
        found["epochs"] = entry.epochs
    return {key: value for key, value in found.items() if key not in FIELDS and "/" not in key}


def chosen(overrides: Iterable[str]) -> dict[str, Any]:
    """What *overrides* set: key → typed value."""
    return {key: typed(value) for key, equals, value in map(split, overrides) if equals}


def typed(value: Any) -> Any:
    """A setting's text as a number or a truth value, if it is one: `1e-3` → 0.001; lists stay text."""
    if not isinstance(value, str):
        return compact(value) if isinstance(value, list) else value
    return _typed(value.strip())


@functools.lru_cache(maxsize=10_000)  # runs share most of their settings
def _typed(text: str) -> int | float | bool | str:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            continue
        return number if math.isfinite(number) else text
    if text[:1] + text[-1:] in ("''", '""'):
        return text[1:-1]
    return text.replace(", ", ",") if text.startswith("[") else text


def _setting(runs: Sequence[Run]) -> Setting:
    """The setting that *runs* share."""
    seeds: dict[Any, list[Run]] = {}
    for number, run in enumerate(runs):  # an unknown seed is one of its own
        seeds.setdefault(run.settings.get("seed", ("unknown", number)), []).append(run)
    finished = {seed: [run for run in same if run.state == "finished"] for seed, same in seeds.items()}
    failed = [seed for seed, same in seeds.items() if not finished[seed] and any(run.state in LOST for run in same)]
    return Setting(list(runs), [done for done in finished.values() if done], len(failed))


def _point(run: Run, by: Sequence[str]) -> tuple[Any, ...]:
    """The values of the keys *by*."""
    return tuple(run.settings.get(key, ABSENT) for key in by)


def _varies(runs: Sequence[Run], key: str, by: Sequence[str]) -> bool:
    """Whether runs that agree in the keys *by* differ in *key*."""
    first: dict[tuple[Any, ...], Any] = {}
    known = (run for run in runs if key in run.settings)
    return any(first.setdefault(_point(run, by), run.settings[key]) != run.settings[key] for run in known)


def _fits(one: tuple[str, str], other: tuple[str, str]) -> bool:
    """Whether two datasets, by name and digest, may be the same, as far as is known."""
    return all(a == b or not a or not b for a, b in zip(one, other, strict=True))


def _values(seeds: Sequence[Sequence[Run]], metric: str) -> list[float]:
    """See `Setting.over_seeds`."""
    measured = ([run.metrics[metric] for run in runs if metric in run.metrics] for runs in seeds)
    return [fmean(values) for values in measured if values]


def _worth(seeds: Sequence[Sequence[Run]], split: str) -> tuple[float, float]:
    """Mean final accuracy on *split* and mean loss, negative: the larger, the better. What is unknown is the worst."""
    accuracies, losses = (_values(seeds, f"final/{split}_{what}") for what in ("accuracy", "loss"))
    accuracy = round(fmean(accuracies), DIGITS) if accuracies else -math.inf
    return accuracy, -fmean(losses) if losses else -math.inf


def _median(items: Sequence[T], worth: Callable[[T], tuple[float, float]]) -> T:
    """The middle one of *items*, and of two in the middle the lower one."""
    return sorted(items, key=worth)[(len(items) - 1) // 2]
