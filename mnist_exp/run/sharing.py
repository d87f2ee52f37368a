"""How many CPU threads a run by itself takes, while other programs want the processors, too.

Threads wait for each other many times a step. Where another program has the core that one of them needs, all wait: two
runs at once take several times as long with a thread for each core as with one thread each (benchmarks/busy.py).
"""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, final

from mnist_exp import system
from mnist_exp.console.formats import plural
from mnist_exp.engine.events import EpochEnd, Observer

if TYPE_CHECKING:
    from mnist_exp.run.session import Run

log = logging.getLogger(__name__)


@final
class Sharing(Observer):
    """Chooses the threads of one run: at its start, and again after each epoch.

    Their number decides the last bits of all losses. So the ledger keeps each change, and `rerun` repeats them.

    Args:
        fixed: As many threads as were asked for; None: as many as there are cores that others leave free.
        changes: Those to repeat: threads after epochs.
    """

    def __init__(self, fixed: int | None, changes: Mapping[str, int]) -> None:
        self.fixed, self.changes = fixed, changes
        self.free = None if fixed else system.FreeCores()
        self.most = self.threads = self.calm = 0
        self.wait = 1
        """Epochs with free cores before the one after which it takes more; doubled whenever it has to take fewer."""

    def begin(self) -> int:
        """Threads to begin with, once torch is loaded; OMP_NUM_THREADS is a limit."""
        import torch

        self.most = min(torch.get_num_threads(), system.cores())
        self.threads = self.fixed or self._fitting()
        return self.threads

    def watch(self, about: "Run") -> Observer:
        """The observer of the run that begins."""
        self.ledger, self.threads = about.ledger, about.threads
        return self

    def on_epoch(self, event: EpochEnd) -> None:
        """Trains on with another number of threads, if that fits better now."""
        wanted = self.changes.get(str(event.epoch)) or self._better()
        if wanted == self.threads or event.epoch == self.ledger.epochs:
            return
        import torch

        if self.free:
            log.info("Other programs leave %s: it trains on with as many threads.", plural(wanted, "core"))
        torch.set_num_threads(wanted)
        self.threads = self.ledger.threads_after[str(event.epoch)] = wanted

    def _fitting(self) -> int:
        """As many threads as there were free cores since the last look; as now, if that was just before."""
        free = self.free.look() if self.free else None
        return (self.threads or self.most) if free is None else min(max(1, round(free)), self.most)

    def _better(self) -> int:
        """Fewer threads at once; more only after some epochs, for others may take more as well."""
        fitting = self._fitting()
        self.calm = self.calm + 1 if fitting > self.threads else 0
        if fitting < self.threads:
            self.wait *= 2
        return fitting if fitting < self.threads or self.calm > self.wait else self.threads
