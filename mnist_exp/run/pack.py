"""Packs: the runs that train together, as lanes of one stack; a run that trains alone is a pack of one."""

import itertools
import logging
import os
from collections.abc import Sequence
from typing import final

import torch
from torch import nn

from mnist_exp import config as configs
from mnist_exp import data, system
from mnist_exp.config import Config, Precision
from mnist_exp.disk import lanes
from mnist_exp.disk.checkpoint import Checkpoint
from mnist_exp.disk.journal import Row
from mnist_exp.disk.layout import RunFolder, State
from mnist_exp.engine import graph
from mnist_exp.engine.average import Average
from mnist_exp.engine.loop import Descent, Progress
from mnist_exp.engine.stack import Tensors
from mnist_exp.run import build, memory
from mnist_exp.run.claim import Member, same_shapes

log = logging.getLogger(__name__)

SHARE = 0.9  # of the GPU's free memory, for lanes; the rest is for images and what torch itself needs

Moments = dict[str, Tensors]
"""What an optimiser keeps: {parameter: {quantity: tensor}}."""


def grouped(members: Sequence[Member]) -> list[list[Member]]:
    """*members* by pack. New ones form one pack, with equal networks as neighbours; a single run stays alone."""

    def pack(member: Member) -> tuple[int, int, str]:
        alone = str(member.folder) if member.saved else ""
        return member.entry.threads_now, member.epoch, member.record.together if member.record else alone

    def network(member: Member) -> str:
        return repr((member.config.model, member.config.lr, member.config.optimizer))

    ordered = sorted(members, key=lambda member: (pack(member), network(member)))
    return [list(group) for _, group in itertools.groupby(ordered, key=pack)]


def within_memory(members: list[Member]) -> list[list[Member]]:
    """*members* as packs that the memory of their GPU holds; begun ones keep their lanes, and with them their pack."""
    device = build.device(members[0].config)
    if device.type == "cpu" or members[0].record or len(members) == 1:
        return [members]
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else system.memory()  # Apple's GPU shares it
    if sum(memory.of_lane(member.config, member.network) for member in members) <= SHARE * free:
        return [members]
    return [pack for half in halves(members) for pack in within_memory(half)]


def halves(members: list[Member]) -> list[list[Member]]:
    """*members* as two packs, which have not begun."""
    for member in members:
        member.record = None
        system.unlink(RunFolder(member.folder).lanes)
    middle = len(members) // 2
    return [members[:middle], members[middle:]]


@final
class Pack:
    """Runs that have come equally far, as lanes of one stack: each from its checkpoint, or from the beginning.

    Lanes that *members* lack get placeholders; see `lanes.py`.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        config = members[0].config
        self.device, self.threads = build.device(config), members[0].entry.threads_now
        set_up_torch(config, self.device, self.threads)
        self.splits = data.load(config.data, self.device)
        rows = self.splits.train.rows
        self.order = data.Order(rows, config.batch_size, configs.order_seed(config), build.augment(config))
        for member in members:
            member.note_data(self.splits)
        if len(members) > 1 and not members[0].record:
            records = lanes.begin([m.config for m in members], [m.folder for m in members])
            for member, record in zip(members, records, strict=True):
                member.record = record
        self._assemble(members)

    def _assemble(self, members: Sequence[Member]) -> None:
        """Builds what trains *members*, and brings each to where it was."""
        self.members = {member.lane: member for member in members}
        first, runs = members[0], self.members
        config, settings, networks = first.config, [first.config], [first.network]
        pauses: list[int] = []
        if record := first.record:
            present = enumerate(record.present(first.epoch))
            settings = [runs[i].config if i in runs else record.placeholder(lane, config) for i, lane in present]
            with torch.device("meta"):  # a pack from elsewhere may have any shapes
                memory.check_network(nn.ModuleList(build.model(s) for i, s in enumerate(settings) if i not in runs))
            networks = [runs[i].network if i in runs else build.model(s) for i, s in enumerate(settings)]
            pauses = [epoch for epoch in record.left.values() if epoch > first.epoch]
        self.stack, self.method = build.stack(settings, networks, self.device)
        schedule = build.schedule(config, config.epochs * self.order.steps)
        optimizer = build.optimizer(settings[0], build.groups(settings, self.stack))
        self.method += build.note(optimizer) + graph.note(self.stack, optimizer)
        average = Average(optimizer, settings[0].training.ema)
        self.descent = Descent(optimizer, schedule, average, [each.lr for each in settings])
        self.progress = Progress(config.epochs, set(runs), config.training.patience, pauses)
        saved = {lane: member.saved for lane, member in runs.items() if member.saved}
        self._restore(saved, self._fitting(saved, settings))

    def drop_pruned(self) -> bool:
        """Makes the stack smaller by the lanes that were pruned; returns whether there is something left to train."""
        epoch, staying = self.progress.epoch, [self.members[lane] for lane in sorted(self.progress.alive)]
        if not staying or epoch == self.progress.epochs:
            return False
        pruned = [m.record.lane for m in self.members.values() if m.record and m.entry.state == State.PRUNED]
        states = [self.state(member, [], {}, {}) for member in staying]
        for member, state in zip(staying, states, strict=True):
            member.go_on_without(pruned, state)
        self._assemble(staying)
        return True

    def _fitting(self, saved: dict[int, Checkpoint], settings: Sequence[Config]) -> dict[int, Moments]:
        """The saved moments of each lane; none where force has brought an optimiser that keeps other ones."""
        moments = {lane: state.moments for lane, state in saved.items()}
        if not any(moments.values()):
            return moments
        trial = build.tried(settings, self.stack)
        for lane, mine in moments.items():
            keeps = self.stack.moments(lane, trial)
            if saved[lane].config == self.members[lane].entry.fingerprint["config"]:
                _check_moments(mine, keeps)
            elif (has := _quantities(mine)) != _quantities(keeps):
                moments[lane] = {}
                if names := sorted(set().union(*has.values())):
                    log.warning(
                        "The optimiser begins anew: what the earlier one left (%s) does not fit it.", ", ".join(names)
                    )
        return moments

    def _restore(self, saved: dict[int, Checkpoint], moments: dict[int, Moments]) -> None:
        """Brings the lanes to where their checkpoints were saved, and the optimiser to these *moments*."""
        optimizer, average, progress = self.descent.optimizer, self.descent.average, self.progress
        for lane, state in saved.items():
            self.stack.restore(lane, state.averaged or state.weights, {}, optimizer)
        average.restart()
        for lane, state in saved.items():
            self.stack.restore(lane, state.weights, moments[lane], optimizer)
            progress.epoch = state.epoch
            known = state.chosen or not progress.patience  # not if patience was added, with force
            best = (state.best, state.best_epoch) if known else (-1.0, state.epoch)
            progress.best[lane], progress.best_epoch[lane] = best

    def state(self, member: Member, history: list[Row], chosen: Tensors, hits: Tensors) -> Checkpoint:
        """What the lane of *member* needs to continue."""
        lane = member.lane
        moments = self.stack.moments(lane, self.descent.optimizer)
        return Checkpoint(
            epoch=self.progress.epoch,
            best=self.progress.best[lane],
            weights=_copies(self.stack.weights(lane)),
            moments={name: _copies(tensors) for name, tensors in moments.items()},
            history=history,
            config=member.entry.fingerprint["config"],
            best_epoch=self.progress.best_epoch[lane],
            averaged=self.in_use(lane) if member.config.training.ema else {},
            chosen=chosen,
            hits=hits,
        )

    def in_use(self, lane: int) -> Tensors:
        """The weights that are evaluated and exported: the averaged ones if there is an average."""
        with self.descent.average.in_use():
            return _copies(self.stack.weights(lane))


def set_up_torch(config: Config, device: torch.device, threads: int) -> None:
    """Sets threads and arithmetic for training *config* on *device*."""
    torch.set_flush_denormal(True)  # Adam's moments of unlit pixels become denormal and slow it down
    torch.set_num_threads(threads)
    if device.type == "cuda":
        torch.cuda.set_device(device.index or 0)  # what names no device would open a context on the first GPU
        exact = config.precision is Precision.fp32
        torch.set_float32_matmul_precision("highest" if exact else "high")
        torch.backends.cudnn.allow_tf32 = not exact  # convolutions: torch's own default is tf32
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else products on several streams may differ
        torch.backends.cudnn.deterministic = config.deterministic
        if config.deterministic != torch.are_deterministic_algorithms_enabled():  # the call imports torch's compiler
            torch.use_deterministic_algorithms(config.deterministic, warn_only=True)  # for others in one's own network


def _quantities(moments: Moments) -> dict[str, dict[str, torch.Size]]:
    """What an optimiser keeps for each parameter, with the shapes."""
    return {name: {key: tensor.shape for key, tensor in tensors.items()} for name, tensors in moments.items()}


def _check_moments(has: Moments, keeps: Moments) -> None:
    """Raises CheckpointError unless an optimiser that has the moments *keeps* after a step could have saved *has*.

    It may keep more than after its first step, and nothing of a parameter that had no gradient.
    """
    for name, tensors in has.items():
        wanted = {f"{key} of {name}": tensor for key, tensor in keeps.get(name, {}).items() if tensors}
        known = {f"{key} of {name}": tensor for key, tensor in tensors.items()}
        same_shapes({key: tensor for key, tensor in known.items() if key in wanted}, wanted)


def _copies(tensors: Tensors) -> Tensors:
    """Copies on the CPU, each with its own memory: a view would save the whole buffer."""
    return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
