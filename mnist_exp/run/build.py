"""From config nodes to objects, by Hydra's `_target_` convention; every failure becomes a ConfigError."""

import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from torch import Tensor, nn, optim
from torch.func import functional_call

from mnist_exp import processor
from mnist_exp.config import Config, Precision, Shape, as_typed, sizes
from mnist_exp.config.guesses import closest, having
from mnist_exp.data import Augment, mix
from mnist_exp.disk.lanes import ALONE
from mnist_exp.engine import closed_form, fused
from mnist_exp.engine.events import Callback
from mnist_exp.engine.fused import Optimizer
from mnist_exp.engine.schedules import Decay, Schedule
from mnist_exp.engine.stack import ModuleStack, Stack
from mnist_exp.errors import CheckpointError, ConfigError, ExperimentError, first_line
from mnist_exp.models import MLP
from mnist_exp.run import memory, warm

ELEMENTWISE = {optim.Adadelta, optim.Adagrad, optim.Adam, optim.Adamax, optim.AdamW, optim.ASGD}
ELEMENTWISE |= {optim.NAdam, optim.RAdam, optim.RMSprop, optim.Rprop, optim.SGD}
"""Elementwise optimisers: they update a long vector of all weights as they would update the matrices.

Others, such as Muon and Adafactor, depend on rows and columns, so their networks train by autograd.
"""

MPS_STEP = 1e9
KINDS = {float: "a number", int: "a whole number", bool: "true or false", str: "a text"}


def device(config: Config) -> torch.device:
    """The device to train on; `auto` takes a GPU if there is one, Apple's only where `pays_on_mps` says so.

    Raises:
        ConfigError: that device is not on this machine, or cannot do `precision`.
    """
    count = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available()), "cpu": 1}
    name = config.device
    if name == "auto":
        name = "cuda" if count["cuda"] else "mps" if count["mps"] and pays_on_mps(config) else "cpu"
    device = torch.device(name)
    if (device.index or 0) >= count[device.type]:
        raise ConfigError(
            f"device={config.device} is not on this machine: torch {torch.__version__} "
            f"sees {count['cuda']} CUDA devices.",
            "Try device=auto.",
        )
    if config.precision is Precision.tf32 and device.type != "cuda":
        raise ConfigError(f"precision=tf32 needs CUDA, but the device is {device.type}.", "Try precision=fp32.")
    return device


def pays_on_mps(config: Config) -> bool:
    """Whether Apple's GPU is likely to train *config* faster than its CPU.

    An estimate from published speeds, measured on no Mac: a step launches some fifty kernels, a millisecond altogether,
    in which the CPU's matrix units (Accelerate) do some `MPS_STEP` operations. Convolutions have no such units.
    """
    with torch.device("meta"):
        network = model(config)
    convolves = any(isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d)) for layer in network.modules())
    weights = sum(p.numel() for p in network.parameters())
    return convolves or 6 * weights * config.batch_size >= MPS_STEP  # two for a product, three products for a weight


def advice(config: Config, where: torch.device) -> str:
    """What people should know of training *config* there; mostly nothing."""
    slow = config.precision is Precision.bf16 and where.type == "cpu" and processor.lacks_bfloat16()
    return f"{processor.SLOW_BFLOAT16} Try precision=fp32." if slow else ""


def model(config: Config) -> nn.Module:
    """The network with its initial weights, a function of the config and its seed alone.

    Raises:
        ConfigError: the target does not exist, does not take these keywords, or refuses their values; or the network
            does not take the last batch.
    """
    torch.manual_seed(mix(config.seed))
    maker = _maker("model", config.model, offered=_of_dataset(config))
    built: nn.Module = _make("model", config.model, maker, nn.Module, "a torch.nn.Module")
    _check_last_batch(config, built)
    return built


def _of_dataset(config: Config) -> dict[str, Any]:
    """What networks and augmentations get of the dataset, if they take it."""
    return {"shape": config.data.shape, "classes": config.data.num_classes}


def _check_logits(config: Config, network: nn.Module) -> None:
    """Raises ConfigError unless *network* makes a logit for each class of an image of the dataset."""
    wanted, shape = config.data.num_classes, config.data.shape
    name = config.model["_target_"].rsplit(".", 1)[-1]
    try:
        got = _shape_of_logits(config, network)
    except Exception as error:
        raise ConfigError(
            f"{name} does not take the images of {config.data.name}, {sizes(shape)}: {first_line(error)}",
            "A network that takes shape=(channels, height, width) gets that of the dataset.",
        ) from error
    if got != (2, wanted):
        makes = f"{got[1]} outputs" if len(got) == 2 and got[0] == 2 else f"outputs of shape {got} for two images"
        raise ConfigError(
            f"{name} makes {makes}, but {config.data.name} has {wanted} classes (data.num_classes).",
            "A network that takes classes=… gets the number of the dataset.",
        )


@torch.no_grad()
def _shape_of_logits(config: Config, network: nn.Module) -> tuple[int, ...]:
    """What *network*, or one like it with memory, makes of two images."""
    shape = config.data.shape
    if isinstance(network, MLP) and network.pixels == math.prod(shape):  # it may be too large to try
        return 2, network.classes
    with torch.device("cpu"):
        return tuple(model(config).eval()(torch.zeros(2, *shape)).shape)


def _check_last_batch(config: Config, network: nn.Module) -> None:
    """Raises ConfigError if *network* needs two images and the last batch of an epoch is a single one."""
    rows, size = config.data.training, config.batch_size
    if (rows - 1) % size or not _needs_two(network, config.data.shape):
        return
    fitting = [b for b in sorted(range(2, rows + 1), key=lambda b: abs(b - size)) if (rows - 1) % b][:2]
    raise ConfigError(
        f"Batch norm needs two images, but with batch_size={size} the last batch of {rows:,} images has one.",
        f"Try batch_size={' or '.join(map(str, sorted(fitting)))}." if fitting else "Try more images, or another norm.",
    )


def _needs_two(network: nn.Module, shape: Shape) -> bool:
    """Whether it has a batch norm that sees one number of each channel where the batch is one image of *shape*."""
    if not any(isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)) for layer in network.modules()):
        return False
    without_numbers = {key: value.to("meta") for key, value in network.state_dict().items()}
    try:
        functional_call(network, without_numbers, torch.zeros(1, *shape, device="meta"))
    except Exception as error:  # any other is for those who try it with two
        return isinstance(error, ValueError)
    return False


def in_closed_form(config: Config, network: nn.Module) -> bool:
    """Whether *network* can train without autograd."""
    elementwise = _maker("optimizer", config.optimizer, []).func in ELEMENTWISE
    return config.precision is not Precision.bf16 and closed_form.fits(network) and elementwise


def stack(configs: Sequence[Config], networks: Sequence[nn.Module], where: torch.device) -> tuple[Stack, str]:
    """What trains *networks*, and its name for the log.

    Several may train together if `sweep/packing.py` gives their configs the same key.
    """
    networks, config = [network.to(where) for network in networks], configs[0]
    if all(map(in_closed_form, configs, networks)):
        lanes: list[MLP] = networks  # type: ignore[assignment]  # fits() has checked
        settings = [_update(c, where) for c in configs]
        sets = [settings.index(s) for s in settings]
        seeds = [c.seed for c in configs]
        return closed_form.MLPStack(lanes, seeds, sets, config.training), "closed-form gradients"
    if len(networks) > 1:  # by a pack record from elsewhere
        raise CheckpointError("Networks that train by autograd cannot be lanes of a pack.", ALONE)
    autocast = torch.bfloat16 if config.precision is Precision.bf16 else None
    return ModuleStack(networks[0], config.seed, config.training, config.data.shape, autocast), "autograd"


def _update(config: Config, where: torch.device) -> dict[str, Any]:
    """What lanes must have in common to be updated by the same kernels.

    That is all of the optimiser but its rate; on a CPU that, too: there the work counts, not the number of kernels.
    """
    target = _maker("optimizer", config.optimizer, [])
    at_rates = where.type != "cpu" and fused.fits(target.func, target.keywords)
    return {k: v for k, v in config.optimizer.items() if k != "lr"} | ({} if at_rates else {"lr": config.lr})


def groups(configs: Sequence[Config], built: Stack) -> list[dict[str, Any]]:
    """The parameter groups of *built*; each after the first has the options of its lanes."""
    groups = built.groups()
    for number, group in enumerate(groups):
        mine = [c for c, s in zip(configs, built.sets, strict=True) if s == number]
        if number:
            group |= {k: v for k, v in mine[0].optimizer.items() if not k.startswith("_")} | {"lr": mine[0].lr}
        if len({c.lr for c in mine}) > 1:
            assert isinstance(built, closed_form.MLPStack)
            group |= {"lr": 1.0, "rates": built.spread(number, [c.lr for c in configs])}
    return groups


def optimizer(config: Config, groups: list[dict[str, Any]]) -> Optimizer:
    """The optimiser over *groups*; each remembers the rate that schedules start from as `initial_lr`."""
    node = {**config.optimizer, "lr": config.lr}
    maker = _maker("optimizer", node, groups)
    if fused.fits(maker.func, maker.keywords):
        maker = functools.partial(fused.Fused, maker.func, **maker.keywords)
    kinds = (fused.Fused, optim.Optimizer)
    built: Optimizer = _make("optimizer", node, functools.partial(maker, groups), kinds, "a torch optimiser")
    for group in built.param_groups:
        group["initial_lr"] = group["lr"]
    return built


@torch.no_grad()
def tried(configs: Sequence[Config], built: Stack) -> Optimizer:
    """The optimiser of *configs* after a step without gradient, to see what it keeps; *built* itself does not move."""
    own = groups(configs, built)
    copies = [{**group, "params": [torch.zeros_like(p) for p in group["params"]]} for group in own]
    originals: dict[Tensor, Tensor] = {}
    for mine, theirs in zip(own, copies, strict=True):
        originals |= dict(zip(theirs["params"], mine["params"], strict=True))
    for copy in originals:
        copy.grad = torch.zeros_like(copy)
    trial = optimizer(configs[0], copies)
    trial.step()
    trial.state = {originals[copy]: quantities for copy, quantities in trial.state.items()}
    return trial


def note(optimizer: Optimizer) -> str:
    """What the log adds about an optimiser that is not fused: `, torch's Adadelta`."""
    kind = type(optimizer)
    return "" if kind is fused.Fused else f", {kind.__module__.partition('.')[0]}'s {kind.__name__}"


def schedule(config: Config, steps: float = math.inf) -> Schedule:
    """The learning rate over time, for a training of so many *steps*."""
    maker = _maker("schedule", config.schedule)
    built: Schedule = _make("schedule", config.schedule, maker, Callable, "something callable")
    if isinstance(built, Decay):
        built.steps = steps
    return built


def augment(config: Config) -> Augment | None:
    """The augmentation of training images; None without one."""
    if not config.augment:
        return None
    maker = _maker("augment", config.augment, offered=_of_dataset(config))
    built: Augment = _make("augment", config.augment, maker, Callable, "something callable")
    return built


def callbacks(config: Config, run: Any) -> dict[str, Callback]:
    """The callbacks of *run*, by name; they get it if they take it."""
    built = {}
    for name, node in config.callbacks.items():
        group, way_out = f"callbacks.{name}", "Its class derives from mnist_exp.engine.events.Callback."
        built[name] = _make(group, node, _maker(group, node, offered={"run": run}), Callback, "a Callback", way_out)
    return built


def rehearse(config: Config) -> int:
    """Builds everything without memory or data, so that a wrong keyword costs no training.

    Returns:
        The number of trainable parameters.

    Raises:
        ConfigError: something cannot be built, `warm.check` refuses, or the machine lacks the memory.
    """
    device(config)
    with torch.device("meta"):
        network = model(config)
        parameters = sum(p.numel() for p in network.parameters())
        optimizer(config, [{"params": list(network.parameters())}])
    schedule(config)
    augment(config)
    for name, node in config.callbacks.items():  # not made: they may open files
        _maker(f"callbacks.{name}", node, offered={"run": None})
    if config.init:
        warm.check(config.init, network)
    memory.check_network(network)
    memory.check_images(config.data)
    _check_logits(config, network)
    return parameters


def _maker(
    group: str, node: dict[str, Any], *arguments: Any, offered: Mapping[str, Any] | None = None
) -> "functools.partial[Any]":
    """The target of *node* with its keywords, not yet called; it is checked to take them after *arguments*.

    What is *offered* it gets as well, where it takes that and *node* does not say otherwise.
    """
    try:
        maker = instantiate({**node, "_partial_": True, "_convert_": "all"})
    except InstantiationException as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise ConfigError(f"{group}._target_={node.get('_target_')} cannot be used: {reason}") from error
    assert isinstance(maker, functools.partial)
    try:
        signature = inspect.signature(maker.func)
    except ValueError:  # built in C: the call itself will raise
        return maker
    given = {key: value for key, value in (offered or {}).items() if key in signature.parameters}
    maker = functools.partial(maker.func, *maker.args, **(given | maker.keywords))
    _check_keywords(group, maker, signature, arguments)
    _check_types(group, maker, signature)
    return maker


def _make(group: str, node: dict[str, Any], maker: Callable[[], Any], kind: Any, what: str, way_out: str = "") -> Any:
    """What *maker* makes, which must be of that *kind*, in words *what*; its exceptions become ConfigErrors."""
    try:
        made = maker()
    except ExperimentError as error:
        raise ConfigError(error.message, error.help or _about(group)) from error
    except Exception as error:
        reason = f"{group}._target_={node['_target_']} refused its settings: {error}"
        raise ConfigError(reason, _about(group)) from error
    if not isinstance(made, kind):
        raise ConfigError(f"{group}._target_ must make {what}, not a {type(made).__name__}.", way_out)
    return made


def _about(group: str) -> str:
    """Where the settings of *group* are listed, with their values."""
    return f"See python -m mnist_exp.train --help {group.partition('.')[0]}"


def _check_types(group: str, maker: "functools.partial[Any]", signature: inspect.Signature) -> None:
    """Raises ConfigError where a keyword is declared as a number, text or truth value, and is another one."""
    for key, value in maker.keywords.items():
        declared = signature.parameters.get(key)
        if declared is None or value == declared.default or not isinstance(value, float | int | str | None):
            continue
        kinds = get_args(declared.annotation) or (declared.annotation,)
        if get_origin(declared.annotation) is Literal:
            wanted, fits = list(kinds), value in kinds
        elif all(kind in KINDS or kind is NoneType for kind in kinds):
            wanted = [name for kind, name in KINDS.items() if kind in kinds]
            fits = (
                type(value) in kinds or (type(value) is int and float in kinds) or (value in (0, 1) and bool in kinds)
            )
        else:  # whoever declares more knows what it takes
            continue
        if not fits:
            reason = f"{group}.{key} must be {' or '.join(wanted)}, but got {as_typed(value)}."
            raise ConfigError(reason, _about(group))


def _check_keywords(
    group: str, maker: "functools.partial[Any]", signature: inspect.Signature, arguments: tuple[Any, ...]
) -> None:
    """Raises ConfigError if the target does not take these keywords; suggests the nearest one."""
    try:
        signature.bind(*arguments, **maker.keywords)
    except TypeError as error:
        known = [name for name in signature.parameters if name not in ("self", "params")]
        wrong = [key for key in maker.keywords if key not in known]
        if not wrong:
            raise ConfigError(f"{group}: {error}.") from error
        near, others = closest(wrong[0], known), having(f"{group}.{wrong[0]}")
        way_out = [f"Did you mean '{group}.{near}'?" if near else "", others, f"It takes: {', '.join(known)}"]
        reason = f"{group}.{wrong[0]} is not a setting of {maker.func.__name__}."
        raise ConfigError(reason, " ".join(filter(None, way_out))) from error
