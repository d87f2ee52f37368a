"""What a config is known by: its plain data, fingerprint, params and name."""

import dataclasses
import functools
import hashlib
import operator
from typing import Any

from mnist_exp.config import schema
from mnist_exp.config.numerals import brief
from mnist_exp.config.overrides import compact, split
from mnist_exp.config.schema import FOLLOWING, Config, Kind, within

OPTIONAL = schema.of(Kind.OPTIONAL)
"""Settings that are params only where they are chosen."""
UNNAMED = (*schema.of(Kind.WHERE | Kind.CONTROL), "name", "device", "hydra", "cluster")
"""What a run's name leaves out: where the run is trained and kept, and how it is resumed."""


def to_dict(config: Config) -> dict[str, Any]:
    """The config as plain data: what `config.yaml` and the fingerprint hold."""
    plain = dataclasses.asdict(config)
    plain["precision"] = config.precision.name
    return plain


def flatten(plain: dict[str, Any], prefix: str = "", keep_empty: bool = False) -> dict[str, Any]:
    """Nested dictionaries as one, with dotted keys; lists stay values, and empty dictionaries if they are kept."""
    flat: dict[str, Any] = {}
    for key, value in plain.items():
        if isinstance(value, dict) and (value or not keep_empty):
            flat |= flatten(value, f"{prefix}{key}.", keep_empty)
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def fingerprint(config: Config) -> str:
    """Digest of what decides a run's result; where it is tracked and how it is called does not."""
    plain = to_dict(config)
    plain["init"] = config.init and config.init.rpartition("@")[2]  # its digest, wherever the source is
    flat = [(key, value) for key, value in flatten(plain).items() if has_effect(key) and _given(key, value)]
    return hashlib.sha256(repr(sorted(flat)).encode()).hexdigest()[:16]


def _given(key: str, value: Any) -> bool:
    """Whether *key* says something: a `LATER` setting at its default says what there was before it."""
    known = schema.settings().get(key)
    return not (known and known.kind & Kind.LATER and value == known.default)


@functools.lru_cache(maxsize=10_000)  # each config of a sweep has the same keys
def has_effect(key: str) -> bool:
    """Whether the setting *key* changes what a run computes."""
    return not within(key, schema.of(Kind.LABEL | Kind.WHERE | Kind.CONTROL | Kind.SWEEP))


def label(node: dict[str, Any]) -> str:
    """Short name of a `_target_` node: `adam` for torch.optim.Adam."""
    return str(node.get("_target_", "")).rsplit(".", 1)[-1].lower()


def run_name(config: Config, overrides: list[str]) -> str:
    """What people read in MLflow's table: `hidden=256 lr=0.001 seed=0`, then what else was typed."""
    if config.name:
        return config.name[:250]
    shown = {**_hidden(config), "lr": brief(config.lr), "seed": str(config.seed)}
    for each in overrides:
        key, _, value = split(each)
        if key not in (*shown, "hidden") and not within(key, UNNAMED):
            shown[key] = value
    return " ".join(f"{key}={value}" for key, value in shown.items())[:250]


def params(config: Config) -> dict[str, Any]:
    """What can vary between runs, flat and few: MLflow's params."""
    named = {group: label(getattr(config, group)) for group in ("model", "optimizer", "schedule", "augment")}
    left_out = {"_target_", "fused", *(key for _, key in FOLLOWING)}
    detail = {
        f"{group}.{key}": compact(value)
        for group in named
        for key, value in flatten(getattr(config, group)).items()
        if key not in left_out
    }
    further = flatten(config.callbacks, "callbacks.")
    detail |= {key: compact(value) for key, value in further.items() if not key.endswith("._target_")}
    return {
        **_hidden(config),
        "lr": config.lr,
        "optimizer": named["optimizer"],
        "epochs": config.epochs,
        "batch_size": config.batch_size,
        "seed": config.seed,
        "model": named["model"],
        "schedule": named["schedule"],
        "augment": named["augment"] or "none",
        "data": config.data.name,
        "val_size": config.data.validating,
        **({"split_seed": config.data.split_seed} if config.data.split_seed else {}),
        **{key: value for key in OPTIONAL if (value := operator.attrgetter(key)(config)) not in (None, False, {})},
        **({"callbacks": " ".join(config.callbacks)} if config.callbacks else {}),
        "precision": config.precision.name,
        **flatten(dataclasses.asdict(config.training), "training."),
        **detail,
    }


def _hidden(config: Config) -> dict[str, str]:
    """`hidden` for names and params, unless the model has none."""
    return {} if config.hidden is None else {"hidden": compact(config.hidden)}
