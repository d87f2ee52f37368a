"""Which jobs of a sweep train together in one process, as lanes on shared batches."""

import itertools
import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch

from mnist_exp import config as configs
from mnist_exp.config import SHAPE, Config, schema
from mnist_exp.config.schema import Kind
from mnist_exp.run import build

FREE = schema.of(Kind.FREE)
"""Settings in which lanes may differ, as they may in `schema.FREE_KEYWORDS`; all others must be equal."""

# Microseconds of CPU a step and lane, batch 64, Adam with a rate for each lane, one thread of a 2-core x86-64 cloud
# machine, torch 2.13, best of five interleaved repeats:
#   lanes                   1    2    3    4    6    8   12   16   24
#   AMD        hidden=32  162  110   90   83   72   66   63   61   61
#              hidden=64  213  155  136  124  116  113  111  123  138
#             hidden=128  291  234  214  206  205  219  234  245  247
#             hidden=256  454  394  399  416  437  446  442
#             hidden=512  751  763  854  839  867
#   Intel      hidden=32  259  183       142       122  114  112
#              hidden=64  346  266       227       214  202  206
#             hidden=128  521  438       403       437  457  474
#             hidden=256  845  792       796       839  898  907
# Alone, a wide network is near what its matrix products take; packs beyond some 800 units leave the cache.
NARROW = 128
UNITS = 768
PIXELS = math.prod(SHAPE)  # at which that was measured: the first layer's weights are what counts
# A GPU has room for far more, and a step costs mostly its launches. An estimate: not measured on one.
UNITS_GPU = 16_384

_CLOSED: dict[str, bool] = {}
"""What `_in_closed_form` knows, by kind."""


def key(config: Config) -> str | None:
    """Runs with the same key can train together; None: this one trains alone.

    All settings but the `FREE` ones must be equal, and so must depth and the order of batches. The order follows the
    seed, so seeds may differ only where `data.order_seed` is set.
    """
    if config.model.get("input_dropout"):  # each would see other images
        return None
    if config.training.patience is not None:  # lanes that stop early would be carried along
        return None
    if not _in_closed_form(config):
        return None
    plain = {k: v for k, v in configs.to_dict(config).items() if k not in FREE}
    for group, free in schema.FREE_KEYWORDS.items():
        plain[group] = {k: v for k, v in plain[group].items() if k not in free}
    plain["order"], plain["depth"] = configs.order_seed(config), len(widths(config))
    plain["data"] = {k: v for k, v in plain["data"].items() if k != "order_seed"}
    return json.dumps(plain, sort_keys=True, default=str)


def _in_closed_form(config: Config) -> bool:
    """Whether it trains without autograd; looked up once for each kind, since a network takes milliseconds to build."""
    kind = repr((_network(config), config.optimizer["_target_"], config.precision))
    if kind not in _CLOSED:
        with torch.device("meta"):
            _CLOSED[kind] = build.in_closed_form(config, build.model(config))
    return _CLOSED[kind]


def joins(config: Config, option: str | int, gpu: bool) -> str | None:
    """As `key`, where training together pays or was asked for; see `divide`."""
    if option in ("off", False, 1) or (option == "auto" and not gpu and max(_units(config)) > NARROW):
        return None
    return key(config)


def widths(config: Config) -> list[int]:
    """Units of the hidden layers, first to last; none where the model has no such setting."""
    return list(config.hidden) if isinstance(config.hidden, list) else [config.hidden or 0]


def divide(
    jobs: Sequence[Config], workers: int, option: str | int, gpu: bool, before: Sequence[str] = ()
) -> list[list[int]]:
    """Positions in *jobs*, by pack: those that train longest first, so that no worker is left with one at the end.

    In a pack equal widths are neighbours, and no worker is left without a pack.

    Args:
        workers: Processes that run at once.
        option: `auto` (by the measured rule above), `off` (or False), or the most lanes of a pack.
        gpu: Whether the jobs train on a GPU.
        before: The pack that each began in before it was interrupted, or an empty string; those stay together,
            whatever *option* says, since apart each would need placeholders for the others (`lanes.py`).
    """
    begun: defaultdict[str, list[int]] = defaultdict(list)
    for i, pack in enumerate(before or [""] * len(jobs)):
        begun[pack].append(i)
    new = begun.pop("", [])
    packs = _match({i: jobs[i] for i in new}, workers, option, gpu)
    packs += begun.values()
    known = costs(jobs)
    return sorted(packs, key=lambda pack: (-sum(known[i] for i in pack), min(pack)))


def costs(jobs: Sequence[Config]) -> list[int]:
    """About how long each trains compared with the others: epochs times weights."""
    weights: dict[str, int] = {}
    for config in jobs:
        if (kind := _network(config)) not in weights:
            with torch.device("meta"):
                weights[kind] = sum(p.numel() for p in build.model(config).parameters())
    return [config.epochs * weights[_network(config)] for config in jobs]


def _network(config: Config) -> str:
    return repr((config.model, config.data.shape, config.data.num_classes))


def _units(config: Config) -> list[float]:
    """The widths that would have as many weights on MNIST's images."""
    scale = math.prod(config.data.shape) / PIXELS
    return [scale * width for width in widths(config)]


def _match(jobs: Mapping[int, Config], workers: int, option: str | int, gpu: bool) -> list[list[int]]:
    """Packs of jobs with the same key, of the size that pays or that was asked for."""
    matching: defaultdict[str | None, list[int]] = defaultdict(list)
    for i, config in jobs.items():
        matching[joins(config, option, gpu)].append(i)
    packs = [[i] for i in matching.pop(None, [])]
    for same in matching.values():
        same.sort(key=lambda i: (widths(jobs[i]), i))
        sizes = [sum(_units(jobs[i])) if option == "auto" else 1 for i in same]
        most = (UNITS_GPU if gpu else UNITS) if option == "auto" else int(option)
        packs += _cut(same, sizes, most, workers)
    return packs


def _cut(items: list[int], sizes: Sequence[float], most: int, workers: int) -> list[list[int]]:
    """*items* in order, in pieces of about equal size: *most* or so, and at least one for each worker."""
    total = sum(sizes)
    count = workers * math.ceil(total / (most * workers))
    middles = [end - size / 2 for end, size in zip(itertools.accumulate(sizes), sizes, strict=True)]
    number = {item: int(middle * count / total) for item, middle in zip(items, middles, strict=True)}
    pieces = [list(piece) for _, piece in itertools.groupby(items, key=number.__getitem__)]
    if len(pieces) < min(workers, len(items)):  # one is larger than all the others: by number then
        return _cut(items, [1] * len(items), len(items), workers)
    return pieces
