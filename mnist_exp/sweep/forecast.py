"""What a sweep would run: its points or its space, what is done already, sizes, packs and time. Nothing is written."""

import functools
import itertools
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from mnist_exp.config import Config
from mnist_exp.config.identity import label
from mnist_exp.config.overrides import key_of
from mnist_exp.console.formats import count, duration, plural, settings
from mnist_exp.console.terminal import say
from mnist_exp.disk import ledger
from mnist_exp.disk.layout import RunFolder, State
from mnist_exp.run import build
from mnist_exp.search.study import Search
from mnist_exp.sweep import points
from mnist_exp.sweep.home import Home
from mnist_exp.sweep.job import shared
from mnist_exp.sweep.local import launch

SHOWN = 50  # points that are listed
EARLIER = 300  # runs that the time is estimated from: the newest


def grid(home: Home, combinations: list[list[str]]) -> None:
    """Shows the points of a grid: its *combinations*, and those of an earlier attempt."""
    jobs = points.planned(home, combinations)
    missing = {job.number for job in points.missing(jobs, home.control)}
    waiting = [job for job in jobs if job.number in missing]
    done = f", {len(jobs) - len(waiting)} of them done already" if len(waiting) < len(jobs) else ""
    say(f"Dry run: {plural(len(jobs), 'run')}{done}. Nothing is written, nothing is trained.")
    capacity = launch.capacity_for(waiting, home.composer, _options(home), len(jobs))
    workers = max(1, len(capacity.slots(len(waiting))))
    packs = launch.divided(waiting, workers, capacity)
    pack_of = {job.number: i for i, pack in enumerate(packs, start=1) for job in pack if len(pack) > 1}
    common = shared([job.overrides for job in jobs])
    if common:
        say(f"All: {settings(sorted(common, key=jobs[0].overrides.index))}")
    for job in sorted(jobs, key=lambda job: job.number)[:SHOWN]:
        own = settings(override for override in job.overrides if override not in common)
        state = "done" if job.number not in missing else f"pack {pack_of[job.number]}" if job.number in pack_of else ""
        say("  ".join(filter(None, [f"#{job.number}", own, f"{count(build.rehearse(job.config))} parameters", state])))
    if len(jobs) > SHOWN:
        say(f"… and {len(jobs) - SHOWN} more")
    say(time([job.config for job in waiting], workers))


def search(home: Home, space: Any, how: Search) -> None:
    """Shows the *space* of a search."""
    runs = how.n_trials * how.runs
    done = home.count(State.FINISHED, State.PRUNED)
    already = f", {done} of them done already" if done else ""
    several = f" of {how.runs} runs each" if how.replicates else ""
    trials = f"{plural(how.n_trials, 'trial')}{several}{already}; {how.method}"
    say(f"Dry run: {trials}. Nothing is written, nothing is trained.")
    if space.fixed:
        say(f"All: {' '.join(space.fixed.values())}")
    for override in home.varying:
        if key_of(override) in space.varied:
            say(f"Searched: {override}")
    corners = points.check(home.composer, space.corners())
    configs = [job.config for job in corners]
    sizes = sorted(map(build.rehearse, configs))
    say(f"{count(sizes[0])} to {count(sizes[-1])} parameters")
    workers = len(launch.capacity_for(corners, home.composer, _options(home)).slots(runs))
    ends = itertools.islice(itertools.cycle(configs), max(0, runs - done))
    say(time(list(ends), workers, pruned=True))


def _options(home: Home) -> dict[str, Any]:
    """Those of the launcher; for one that has no such: as many workers as there are cores, and each job alone."""
    options: Any = OmegaConf.to_container(home.sweeper.config.hydra.launcher)
    return {"workers": None, "per_gpu": 1, "pack": "off", **options}


def time(configs: Sequence[Config], workers: int, pruned: bool = False) -> str:
    """About how long *configs* train on *workers*, by earlier runs of this machine; a sentence."""
    if not configs:
        return "Nothing is left to train."
    seconds = [estimate(config) for config in configs]
    known = [each for each in seconds if each is not None]
    if len(known) < len(configs):
        return "No time is known: no run like these has finished here before."
    about = duration(max(1.0, sum(known) / workers, *known))
    pruning = ", without pruning" if pruned else ""
    return f"About {about} on {plural(workers, 'worker')}{pruning}, by {plural(len(earlier()), 'earlier run')} here."


def estimate(config: Config) -> float | None:
    """Seconds of one run alone: a straight line in the parameters through the epochs of earlier runs like it.

    Like it are those whose epochs take about as long, but for their sizes.
    """
    alike = {"model": label(config.model), "data": config.data.name, "batch_size": config.batch_size}
    like = [entry for entry in earlier() if all(entry.params.get(key) == value for key, value in alike.items())]
    if not like:
        return None
    sizes = np.array([entry.parameters for entry in like], float)
    epochs = np.array([entry.summary.get("time/total_cpu", entry.seconds) / entry.epoch for entry in like])
    if len(set(sizes)) == 1:
        return config.epochs * float(np.median(epochs))
    slope, start = np.polyfit(sizes, epochs, 1)
    return config.epochs * max(float(start + slope * build.rehearse(config)), float(epochs.min()))


@functools.cache
def earlier() -> list[ledger.Ledger]:
    """The newest finished runs of this machine, in this folder."""
    here = socket.gethostname()
    ledgers = sorted(Path("outputs").glob(f"*/*/**/{RunFolder.ledger}"), key=lambda path: path.stat().st_mtime)
    entries = [ledger.find(path.parent) for path in ledgers[-EARLIER:]]
    return [e for e in entries if e and e.host == here and e.epoch and e.state == State.FINISHED]
