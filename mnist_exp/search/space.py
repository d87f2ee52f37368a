"""What may vary: Hydra's override syntax as Optuna's distributions, and back to overrides."""

import contextlib
import importlib
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, final

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep, Transformer
from omegaconf import DictConfig, ListConfig, OmegaConf

from mnist_exp.config import as_typed, sweeps
from mnist_exp.config.overrides import split
from mnist_exp.errors import ConfigError

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

Distribution: TypeAlias = "CategoricalDistribution | FloatDistribution | IntDistribution"
"""Of the values of one key: listed, real or whole."""
Hook = Callable[["optuna.Trial"], Mapping[str, Any]]
"""A conditional space: may look at `trial.params`, suggest more, and returns overrides as key → value."""
USUAL = {"hidden": "tag(log,int(interval(16,512)))", "lr": "tag(log,interval(1e-4,1e-1))"}
"""What is searched where nothing is typed: key → values."""


@final
@dataclass
class Space:
    """What may vary, and what is the same for all."""

    varied: dict[str, Distribution]
    fixed: dict[str, str]
    """Key → override."""
    hook: Hook | None = None

    @property
    def size(self) -> float:
        """How many points it has; infinite with an interval of real numbers, or a hook."""
        return math.inf if self.hook else math.prod(map(_count, self.varied.values()))

    def point(self, trial: "optuna.Trial") -> list[str]:
        """The overrides of *trial*; asking again for the same trial gives the same.

        Raises:
            ConfigError: the hook raised, or returned no overrides.
        """
        values = {key: suggest(trial, key, values) for key, values in self.varied.items()}
        try:
            added = dict(self.hook(trial) or {}) if self.hook else {}
        except Exception as error:
            raise ConfigError(f"hydra.sweeper.space failed: {type(error).__name__}: {error}") from error
        values |= {key: as_typed(value) for key, value in added.items()}
        return list((self.fixed | {key: f"{key}={value}" for key, value in values.items()}).values())

    def again(self, overrides: Sequence[str]) -> dict[str, Any]:
        """The values of a trial that once became *overrides*, for a study that has lost it."""
        params = {}
        for override in sweeps.parser().parse_overrides(list(overrides)):
            key, text = override.get_key_element(), override.get_value_element_as_str()
            choices = getattr(self.varied.get(key), "choices", ())
            if key not in self.fixed:
                params[key] = next((choice for choice in choices if str(choice) == text), override.value())
        return params

    def corners(self) -> list[list[str]]:
        """Points that between them have each end of each interval and each listed value; without the hook's."""
        ends = {key: extremes(values) for key, values in self.varied.items()}
        most = max(map(len, ends.values()), default=1)
        rows = [{key: values[i % len(values)] for key, values in ends.items()} for i in range(most)]
        return [[*self.fixed.values(), *(f"{key}={value}" for key, value in row.items())] for row in rows]


def space(parsed: Sequence[Override], defaults: DictConfig, hook: str | None = None, listed: bool = False) -> Space:
    """The space that overrides describe; of two for one key the later counts.

    Args:
        defaults: The config without them: a key that holds a whole number gets whole numbers.
        hook: `module.function` of a conditional space.
        listed: Whether a range stands for its values, as in a grid.

    Raises:
        ConfigError: an interval does not fit its key, or there is no such function.
    """
    parts = Space({}, {}, load(hook) if hook else None)
    for override in parsed:
        key = override.get_key_element()
        parts.varied.pop(key, None)
        parts.fixed.pop(key, None)
        if override.is_sweep_override():
            parts.varied[key] = distribution(override, defaults, listed)
        else:
            parts.fixed[key] = f"{key}={override.get_value_element_as_str()}" if not override.is_delete() else key
    if not parts.varied and not parts.hook:
        example = "an interval or a list: 'lr=tag(log,interval(1e-4,1e-1))' hidden=64,128"
        example = "a list: hidden=64,128 lr=1e-3,3e-3" if listed else example
        raise ConfigError("There is nothing to search: every key has one value.", f"Give some {example}")
    return parts


def usual(defaults: DictConfig, typed: Collection[str]) -> list[str]:
    """The overrides of the usual space, without keys that were *typed*, and without widths that no model takes."""
    idle = set() if "hidden" in defaults.model else {"hidden"}
    return [f"{key}={values}" for key, values in USUAL.items() if key not in idle.union(typed)]


def distribution(override: Override, defaults: DictConfig, listed: bool) -> Distribution:
    """Optuna's distribution of the values of one key.

    Raises:
        ConfigError: an interval is empty, or has broken bounds for a key that takes whole numbers.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    values, typed = override.value(), override.input_line
    if not isinstance(values, IntervalSweep | RangeSweep) or (listed and isinstance(values, RangeSweep)):
        choices = list(override.sweep_iterator(transformer=Transformer.encode))
        return CategoricalDistribution(list(dict.fromkeys(choices)))
    if isinstance(values, RangeSweep):
        steps = list(override.sweep_iterator())
        low, high, step = min(steps, default=0), max(steps, default=-1), abs(values.step)
        whole = all(isinstance(number, int) for number in steps)
    else:
        low, high, step = values.start, values.end, None
        whole = takes_integers(defaults, override.key_or_group)
        if whole and not (float(low).is_integer() and float(high).is_integer()):
            reason = f"{override.key_or_group} takes whole numbers, but {typed} has other bounds."
            raise ConfigError(reason, f"Write {override.key_or_group}=int(interval({round(low)},{round(high)}))")
        whole = whole or (isinstance(low, int) and isinstance(high, int) and "int(" in typed)
    log = "log" in values.tags
    if not low <= high or (log and not low > 0):
        way_out = "Bounds go from low to high" + (", both above 0." if log else ".")
        raise ConfigError(f"{typed} has no values{' on a logarithmic scale' if log else ''}.", way_out)
    if whole:
        return IntDistribution(int(low), int(high), log=log, step=int(step or 1))
    return FloatDistribution(float(low), float(high), log=log, step=step)


def takes_integers(defaults: DictConfig, key: str) -> bool:
    """Whether *key* holds whole numbers, by its type in the schema or, where that leaves it open, by its value."""
    parent, _, name = key.rpartition(".")
    holder = OmegaConf.select(defaults, parent) if parent else defaults
    if not isinstance(holder, DictConfig) or name not in holder:
        return False
    node = holder._get_node(name)
    kind = getattr(getattr(node, "_metadata", None), "ref_type", Any)
    if kind in (int, float):
        return kind is int
    value = OmegaConf.select(defaults, key, throw_on_missing=False)
    value = value[0] if isinstance(value, ListConfig) and value else value
    return isinstance(value, int) and not isinstance(value, bool)


def suggest(trial: "optuna.Trial", key: str, values: Distribution) -> Any:
    """The value of *key* in *trial*, which is drawn if it has none yet."""
    from optuna.distributions import CategoricalDistribution, IntDistribution

    if isinstance(values, CategoricalDistribution):
        return trial.suggest_categorical(key, values.choices)
    if isinstance(values, IntDistribution):
        return trial.suggest_int(key, values.low, values.high, step=values.step, log=values.log)
    return trial.suggest_float(key, values.low, values.high, step=values.step, log=values.log)


def known(row: Sequence[str], within: Space) -> dict[str, Any]:
    """The values of *row*, overrides of one point, as the study has them.

    Raises:
        ConfigError: a key does not vary, or its value is none of those that are searched.
    """
    from optuna.distributions import CategoricalDistribution

    point: dict[str, Any] = {}
    for typed in row:
        key, _, text = split(typed)
        if key not in within.varied:
            raise ConfigError(f"enqueue: {key} does not vary in this search.", f"It varies: {', '.join(within.varied)}")
        values, number = within.varied[key], _number(text)
        if isinstance(values, CategoricalDistribution):
            alike = [choice for choice in values.choices if as_typed(choice) == text or choice == number]
        else:
            alike = [number] if number is not None and values.low <= number <= values.high else []
        if not alike:
            raise ConfigError(f"enqueue: {typed} is not among what is searched.", f"{key}: {values}")
        point[key] = alike[0]
    return point


def _number(text: str) -> float | None:
    """The number that *text* is; whole ones as such."""
    with contextlib.suppress(ValueError):
        return int(text)
    with contextlib.suppress(ValueError):
        return float(text)
    return None


def extremes(values: Distribution) -> list[Any]:
    """Both ends of an interval, or all that is listed."""
    from optuna.distributions import CategoricalDistribution

    if isinstance(values, CategoricalDistribution):
        return list(values.choices)
    return list(dict.fromkeys([values.low, values.high]))


def _count(values: Distribution) -> float:
    from optuna.distributions import CategoricalDistribution

    if isinstance(values, CategoricalDistribution):
        return len(values.choices)
    return round((values.high - values.low) / values.step) + 1 if values.step else math.inf  # of decimals // loses one


def load(name: str) -> Hook:
    """The function called *name*, such as `mysearch.space`. Raises ConfigError if there is none."""
    module, _, function = name.rpartition(".")
    try:
        hook: Hook = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"hydra.sweeper.space={name} is no function: {error}.",
            "Name one as module.function; the module lies in this folder, or in one of PYTHONPATH.",
        ) from error
    return hook
