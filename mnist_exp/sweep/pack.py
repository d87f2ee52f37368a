"""Which jobs of a sweep train together in one process, as lanes on shared batches."""

import itertools
import json
from collections.abc import Sequence

import torch

from mnist_exp import build
from mnist_exp import config as configs
from mnist_exp.config import Config

FREE = {"hidden", "lr", "seed", "name", "tags"}
FREE_MODEL = {"hidden", "dropout", "init", "init_scale"}
FREE_OPTIMIZER = {"lr", "weight_decay", "betas", "eps", "momentum", "dampening", "nesterov"}
"""Settings in which lanes may differ; all others must be equal."""

NARROW = 128  # units; what is wider gains nothing on a CPU
LANES = 12  # on a CPU: what twelve lanes of 64 units hold still fits into the cache
LANES_GPU = 64


def key(config: Config) -> str | None:
    """Runs with the same key can train together; None: this one trains alone.

    Equal must be, above all, depth, activation, epochs, batch size, data, schedule, augmentation, device and
    the order of batches. That follows the seed: only with `data.order_seed` set can seeds differ.
    """
    if config.model.get("input_dropout"):  # each would see other images
        return None
    with torch.device("meta"):
        if not build.in_closed_form(config, build.model(config)):
            return None
    plain = {k: v for k, v in configs.to_dict(config).items() if k not in FREE}
    plain["model"] = {k: v for k, v in config.model.items() if k not in FREE_MODEL}
    plain["optimizer"] = {k: v for k, v in config.optimizer.items() if k not in FREE_OPTIMIZER}
    plain["order"], plain["depth"] = configs.order_seed(config), len(widths(config))
    plain["data"] = {k: v for k, v in plain["data"].items() if k != "order_seed"}
    return json.dumps(plain, sort_keys=True, default=str)


def widths(config: Config) -> list[int]:
    """Units of the hidden layers, first to last."""
    return list(config.hidden) if isinstance(config.hidden, list) else [config.hidden]


def divide(jobs: Sequence[Config], workers: int, option: str | int, gpu: bool) -> list[list[int]]:
    """Positions in *jobs*, by pack; equal widths are neighbours, and no worker is left without a pack.

    Args:
        workers: Processes that run at once.
        option: `auto`, or the most lanes of a pack.
        gpu: Whether the jobs train on a GPU.
    """
    alone: list[list[int]] = []
    matching: dict[str, list[int]] = {}
    for i, config in enumerate(jobs):
        narrow = gpu or max(widths(config)) <= NARROW
        found = key(config) if option != "auto" or narrow else None
        if found is None:
            alone.append([i])
        else:
            matching.setdefault(found, []).append(i)
    most = (LANES_GPU if gpu else LANES) if option == "auto" else int(option)
    packs = []
    for same in matching.values():
        same.sort(key=lambda i: (widths(jobs[i]), i))
        rounds = -(-len(same) // (most * workers))
        packs += [list(part) for part in _even(same, rounds * workers)]
    return sorted([*packs, *alone], key=min)


def _even(items: list[int], parts: int) -> list[list[int]]:
    """*items* in order, cut into at most *parts* pieces that differ by one at most."""
    cuts = [len(items) * i // parts for i in range(parts + 1)]
    return [items[a:b] for a, b in itertools.pairwise(cuts) if a < b]
