"""The best setting, and the run that represents it: one rule for reports, names and registered models.

Replicates are runs with the same settings and other seeds or folds (`data.fold`). The best setting has the highest mean
validation accuracy over them, and its median run represents it: the best run would promise too much. The test set
chooses nothing.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar, final

from mnist_exp.config import compact
from mnist_exp.config.identity import OPTIONAL
from mnist_exp.config.overrides import split
from mnist_exp.config.schema import within
from mnist_exp.disk import ledger
from mnist_exp.disk.layout import State
from mnist_exp.disk.ledger import Ledger

FIELDS = (
    *("number", "name", "state", "reason", "epoch", "seconds", "cpu_seconds", "parameters", "started", "ended"),
    *("folder", "overrides", "commit", "sweep", "run_id", "experiment_id", "dataset"),
)
"""The columns of a table of runs that are no settings: no setting has such a name."""

LOST = tuple(state.value for state in State if state.lost)
"""States of runs that will not finish by themselves, as text."""

SPLIT = (("val_size", "data.val_size"), ("split_seed", "data.split_seed"), ("data.stratify",), ("data.folds",))
"""What decides which images validate, by its names among the settings: as a param and as an override."""

REPLICATES = ("seed", "data.fold")
"""Keys in which runs of one setting differ."""

DIGITS = 12  # significant in comparisons: means of equal accuracies may differ in the last bits

ABSENT = object()
"""The value of a setting that a run does not have, which is not null."""

T = TypeVar("T")


@final
@dataclass(frozen=True)
class Run:
    """The properties of a run that comparisons need."""

    at: Any
    """Its folder, or its index in a table."""
    state: str
    settings: Mapping[str, Any]
    """See `settings`."""
    metrics: Mapping[str, float]
    """The measured ones, such as `final/val_accuracy`."""
    digest: str = ""
    """Digest of its images; empty: unknown."""
    folder: Path | None = None
    """None if its files are not on this machine."""

    @property
    def basis(self) -> tuple[str, ...]:
        """What its accuracy rests on; only of runs that agree in that are accuracies comparable.

        Name and digest of its dataset, which of its images validate, and whether the result is that of the best epoch,
        which `training.patience` keeps, or that of the last. Each is empty if it is unknown.
        """
        size, seed, stratify, folds = (self._known(*names) for names in SPLIT)
        seed = seed or ("0" if size else "")  # a param only where it is another, as stratify and folds
        patience = self._known("training.patience")
        return (
            self._known("data"),
            self.digest,
            f"folds={folds}" if folds not in ("", "null") else f"val_size={size}" if size else "",
            f"split_seed={seed}" if seed and size != "0" else "",
            f"stratify={stratify.lower() or 'false'}" if size and size != "0" else "",
            f"{'without' if patience in ('None', 'null') else 'with'} patience" if patience else "",
        )

    def _known(self, *names: str) -> str:
        """The setting with one of *names*; empty if it is unknown."""
        return next((str(self.settings[name]) for name in names if name in self.settings), "")


@final
@dataclass(frozen=True)
class Replicates:
    """The runs of one combination of settings, which differ only in their seed."""

    runs: list[Run]
    """All of them, in their original order."""
    seeds: list[list[Run]]
    """The finished runs of each seed, or each fold of a seed, that has any; together they count as one value."""
    failed: int
    """Number of seeds with a lost run and no finished one."""

    @property
    def split(self) -> str:
        """The split that decides: `val`, or `train` if none of the runs has validation."""
        validated = any("final/val_accuracy" in run.metrics for seed in self.seeds for run in seed)
        return "val" if validated else "train"

    @property
    def median(self) -> Run | None:
        """The run that represents it, if any finished: that of the middle seed, or the lower one of two."""
        if not self.seeds:
            return None
        middle = _median(self.seeds, lambda seed: _worth([seed], self.split))
        return _median(middle, lambda run: _worth([[run]], self.split))

    @property
    def order(self) -> tuple[bool, bool, bool, float, float]:
        """The sort key, the best one first.

        With validation before without, with a finished run before without, without a failed seed before with one: the
        only surviving seed of five may be a lucky one. Then by higher mean accuracy, and then by lower mean loss.
        """
        accuracy, minus_loss = _worth(self.seeds, self.split)
        return self.split != "val", not self.seeds, self.failed > 0, -accuracy, -minus_loss

    def over_seeds(self, metric: str) -> list[float]:
        """The mean of *metric* over the finished runs of each seed that has it."""
        return _values(self.seeds, metric)


@final
@dataclass(frozen=True)
class Ranking:
    """The settings of runs whose accuracies are comparable, compared."""

    data: str
    """The dataset's name, with what else tells it from the bases of other rankings; see `Run.basis`."""
    by: list[str]
    """The keys in which they differ; see `keys`."""
    groups: list[Replicates]
    """Best first."""

    @property
    def best(self) -> Run | None:
        """The median run of the best setting; None if nothing finished."""
        return self.groups[0].median


def read(folder: Path, point: Sequence[str] = ()) -> Run:
    """The run in *folder*; *point* are its overrides in the plan of its sweep."""
    entry, state, _ = ledger.status(folder)
    summary, dataset = (entry.summary, entry.dataset) if entry else ({}, {})
    return Run(folder, state, settings(entry, point), summary, dataset.get("digest", ""), folder)


def rank(runs: Sequence[Run], swept: Sequence[str] | None = None) -> list[Ranking]:
    """Compares *runs*, those of each basis among themselves; *swept* as in `keys`."""
    rankings = []
    for data, same in comparable(runs).items():
        by, groups = keys(same, swept), dict[tuple[Any, ...], list[Run]]()
        for run in same:
            groups.setdefault(_point(run, by), []).append(run)
        best_first = sorted(map(replicates, groups.values()), key=lambda group: group.order)
        rankings.append(Ranking(data, by, best_first))
    return rankings


def keys(runs: Sequence[Run], swept: Sequence[str] | None = None) -> list[str]:
    """The keys in which comparable *runs* differ, without the seed.

    In a sweep: the typed keys, without those that follow from them, and any others that vary, as after points were
    added or runs were resumed with other settings. A run without a setting, such as a planned one, does not
    differ in it.

    Args:
        swept: The keys that a sweep varies, see `swept`; None: the runs are not those of a sweep.
    """
    values: dict[str, set[Any]] = {}
    for run in runs:
        for key, value in run.settings.items():
            values.setdefault(key, set()).add(value)
    for key in ("data", *REPLICATES, *itertools.chain(*SPLIT)):
        values.pop(key, None)
    for key in values:
        if within(key, OPTIONAL) and any("epochs" in run.settings and key not in run.settings for run in runs):
            values[key].add(ABSENT)  # it trained without, and is known to
    differ = [key for key, several in values.items() if len(several) > 1]
    if swept is None:
        return differ
    by = [key for key in dict.fromkeys(swept) if key in values]
    for key in differ:
        if key not in by and _varies(runs, key, by):
            by.append(key)
    return by


def swept(keys: Sequence[str], points: Sequence[list[str]]) -> list[str]:
    """The keys that a sweep varies: its *keys*, and those of overrides that not all of its *points* have."""
    shared = set.intersection(*(set(point) for point in points if point)) if any(points) else set()
    return [*keys, *(key for point in points for key in chosen([o for o in point if o not in shared]))]


def comparable(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """The runs of each basis, by its label: the dataset's name, and what else differs between them.

    A run of which something is unknown, such as a planned one, joins the first basis that it fits.
    """
    bases: list[tuple[str, ...]] = []
    for basis in sorted(dict.fromkeys(run.basis for run in runs), key=lambda basis: basis.count("")):
        if not any(_fits(basis, known) for known in bases):
            bases.append(basis)
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        first = next(basis for basis in bases if _fits(run.basis, basis))
        groups.setdefault(first, []).append(run)
    return {_label(basis, list(groups)): same for basis, same in groups.items()}


def _label(basis: Sequence[str], others: Sequence[Sequence[str]]) -> str:
    """What tells *basis* from the *others*: its dataset, with the digest if another has that name, and what differs."""
    name, digest, *rest = basis
    unique = name and len({other[1] for other in others if other[0] == name}) == 1
    dataset = name if unique else "-".join(filter(None, (name, digest)))
    differ = [part for i, part in enumerate(rest, start=2) if len({other[i] for other in others}) > 1]
    return " ".join(filter(None, [dataset, *differ]))


def settings(entry: Ledger | None, point: Sequence[str] = ()) -> dict[str, Any]:
    """The typed settings of a run, with its seed: its params, overridden by its *point* of a sweep.

    Args:
        entry: None if the run was never started, or its ledger is damaged: then only its point is known.
    """
    values = {key: typed(value) for key, value in entry.params.items()} if entry else {}
    values |= chosen(point)
    if entry:
        values["epochs"] = entry.epochs
    return {key: value for key, value in values.items() if key not in FIELDS and "/" not in key}


def chosen(overrides: Iterable[str]) -> dict[str, Any]:
    """The settings in *overrides*: key → typed value."""
    return {key: typed(value) for key, equals, value in map(split, overrides) if equals}


def typed(value: Any) -> Any:
    """A setting's text as a number or a truth value if possible: `1e-3` → 0.001; lists stay text."""
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
            return number if math.isfinite(number) else text
        except (ValueError, OverflowError):  # a whole number of 400 digits
            continue
    if text[:1] + text[-1:] in ("''", '""'):
        return text[1:-1]
    return text.replace(", ", ",") if text.startswith("[") else text


def replicates(runs: Sequence[Run]) -> Replicates:
    """*runs* with the same settings, by their seeds and folds."""
    seeds: dict[Any, list[Run]] = {}
    for number, run in enumerate(runs):  # an unknown seed equals no other
        seed = run.settings.get("seed", ("unknown", number))
        seeds.setdefault((seed, run.settings.get("data.fold")), []).append(run)
    finished = {seed: [run for run in same if run.state == State.FINISHED] for seed, same in seeds.items()}
    failed = [seed for seed, same in seeds.items() if not finished[seed] and any(run.state in LOST for run in same)]
    return Replicates(list(runs), [done for done in finished.values() if done], len(failed))


def _point(run: Run, by: Sequence[str]) -> tuple[Any, ...]:
    return tuple(run.settings.get(key, ABSENT) for key in by)


def _varies(runs: Sequence[Run], key: str, by: Sequence[str]) -> bool:
    """Whether runs that agree in the keys *by* differ in *key*."""
    first: dict[tuple[Any, ...], Any] = {}
    known = (run for run in runs if key in run.settings or (within(key, OPTIONAL) and "epochs" in run.settings))
    return any(first.setdefault(_point(run, by), run.settings.get(key)) != run.settings.get(key) for run in known)


def _fits(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether two bases may be the same, as far as both are known."""
    return all(a == b or not a or not b for a, b in zip(one, other, strict=True))


def _values(seeds: Sequence[Sequence[Run]], metric: str) -> list[float]:
    """See `Replicates.over_seeds`."""
    measured = ([run.metrics[metric] for run in runs if metric in run.metrics] for runs in seeds)
    return [fmean(values) for values in measured if values]


def _worth(seeds: Sequence[Sequence[Run]], split: str) -> tuple[float, float]:
    """Mean final accuracy on *split* and negative mean loss: the larger, the better; an unknown value is the worst."""
    accuracies, losses = (_values(seeds, f"final/{split}_{what}") for what in ("accuracy", "loss"))
    accuracy = round(fmean(accuracies), DIGITS) if accuracies else -math.inf
    return accuracy, -fmean(losses) if losses else -math.inf


def _median(items: Sequence[T], worth: Callable[[T], tuple[float, float]]) -> T:
    """The middle one of *items*, or the lower one of two."""
    return sorted(items, key=worth)[(len(items) - 1) // 2]
