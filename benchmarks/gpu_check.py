"""The GPU path in under five minutes: what has to hold on one, and what it costs there.

    python -m benchmarks.gpu_check           # on the first GPU
    python -m benchmarks.gpu_check --cpu     # what a CPU can check of it, and of this program; in under a minute

Each line is a check: ok or FAIL, its name, what was seen, seconds. The exit code is 1 if one failed.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, final

import torch
from rich.console import Console
from torch import Tensor

from benchmarks import ours
from mnist_exp.config import Config, Training, compose
from mnist_exp.config.overrides import key_of
from mnist_exp.disk import journal, ledger
from mnist_exp.engine import graph
from mnist_exp.engine.closed_form import MLPStack
from mnist_exp.engine.events import Control, EpochEnd, Observer
from mnist_exp.errors import Interrupted
from mnist_exp.models.mlp import MLP
from mnist_exp.run import build, memory, pack, session
from mnist_exp.run.session import Result, Task

SMALL = ["data=synthetic", "data.train_images=2037", "data.test_images=400", "data.val_size=300", "tracking=off"]
SMALL += ["epochs=4", "checkpoint.model=false", "threads=1"]
TRAINING = Training(label_smoothing=0.1, clip=1.0, max_norm=2.0)
CLIPPED = ["training.clip=1", "training.max_norm=2", "training.label_smoothing=0.1"]
CNN = ["hidden=null", "deterministic=true"]
KINDS = {
    "mlp": ["schedule=onecycle", "schedule.warmup=0.1"],
    "dropout, ema, clip": ["model.dropout=0.3", "training.ema=0.9", "training.clip=1"],
    "sgd": ["optimizer=sgd"],
    "elastic": ["augment=elastic"],
    "muon": ["optimizer=muon"],
    "bf16": ["precision=bf16"],
    "tf32": ["precision=tf32"],
    "small_cnn": ["model=small_cnn", *CNN],
    "strong_cnn bf16": ["model=strong_cnn", "precision=bf16", *CNN],
    "simard_cnn": ["model=simard_cnn", *CNN],
}
GRAPHS: dict[str, list[list[str]]] = {
    "adam": [[]],
    "8 lanes of 8 rates": [[f"lr={0.001 * (8 + i) / 8}"] for i in range(8)],
    "adamw, dropout": [["optimizer=adamw", "model.dropout=0.5"]],
    "sgd, nesterov": [["optimizer=sgd", "optimizer.nesterov=true"]],
    "clip, smoothing, max-norm": [CLIPPED] * 3,
}
SPEEDS = [("128", 1, 1), ("64", 8, 8)]
ONLY_GPU = [("[1024,1024]", 1, 1), ("64", 64, 1), ("64", 64, 64), ("32", 512, 1), ("32", 512, 512), ("32", 4096, 4096)]
ONE = "hydra.launcher.workers=1"
NINETY_NINE = "experiment=small_cnn epochs=2"
PUBLISHED = "published: 0.76 s, a GTX 1660 Ti, one epoch to 99.04 % (tuomaso/train_mnist_fast, notebook 8)"

console = Console(soft_wrap=True, highlight=False)

Seen = tuple[bool, str]
"""Whether it holds, and what was seen."""


@final
class Checks:
    """The checks on *device*; runs lie below *root*."""

    def __init__(self, device: torch.device, root: Path) -> None:
        self.device, self.root = device, root
        self.cpu, self.failed = device.type == "cpu", 0
        self.begun = time.perf_counter()

    def see(self, name: str, look: Callable[[], Seen]) -> None:
        """Prints what one check sees; its exception is a failure with the line that raised it."""
        begun = time.perf_counter()
        try:
            good, text = look()
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            good, text = False, f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
        self.failed += not good
        line = f"{'ok  ' if good else 'FAIL'} | {name:<46} | {' '.join(text.split())[:200]}"
        console.print(f"{line} | {time.perf_counter() - begun:.1f} s", markup=False)

    def config(self, *overrides: str) -> Config:
        """The smallest config, on the device."""
        typed = [*SMALL, f"device={self.device}", *overrides]
        return compose(list({key_of(override): override for override in typed}.values()))  # the last of a key

    def wait(self) -> None:
        """Waits for all kernels."""
        if not self.cpu:
            torch.cuda.synchronize(self.device)

    def gradients(self, hidden: list[int], lanes: int) -> Seen:
        """float32 there against float64 on the CPU."""

        def stack(device: torch.device, dtype: torch.dtype) -> MLPStack:
            torch.manual_seed(0)
            return MLPStack([MLP(hidden).to(device, dtype) for _ in range(lanes)], [0] * lanes, training=TRAINING)

        ours, exact = stack(self.device, torch.float32), stack(torch.device("cpu"), torch.float64)
        for lane in range(lanes):
            for name, weight in exact.weights(lane).items():
                weight.copy_(ours.weights(lane)[name])
        (batch,) = batches(self.device, 1, 59)
        with torch.no_grad():
            ours.gradient(*batch)
            exact.gradient(batch[0].cpu().double(), batch[1].cpu())
        worst = max(
            ((ours.gradients(lane)[name].cpu() - g).norm() / g.norm()).item()
            for lane in range(lanes)
            for name, g in exact.gradients(lane).items()
        )
        aligned = ours.first_weight.data_ptr() % 64 == 0
        return worst < 1e-5 and aligned, f"worst relative error {worst:.1e}, rows begin at cache lines: {aligned}"

    def rates(self, config: Config, lanes: int, rates: int) -> list[Config]:
        """*config* for each of *lanes*, with so many *rates* between them; composing thousands would take minutes."""
        own = [0.001 * (1 + (i * rates // lanes) / rates) for i in range(lanes)]
        return [replace(config, lr=lr, optimizer={**config.optimizer, "lr": lr}) for lr in own]

    def stepper(self, configs: Sequence[Config], graphed: bool) -> tuple[MLPStack, Callable[..., Any]]:
        """A stack with a lane for each of *configs*, and its step."""
        stack, _ = build.stack(configs, [build.model(config) for config in configs], self.device)
        optimizer = build.optimizer(configs[0], build.groups(configs, stack))
        assert isinstance(stack, MLPStack)

        def step(images: Tensor, labels: Tensor, factor: float | Tensor) -> tuple[Tensor, Tensor]:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor
            logits = stack.gradient(images, labels)
            optimizer.step()
            stack.constrain()
            return logits, labels

        return stack, graph.Graphed(step, stack.generators()) if graphed else step

    @torch.no_grad()
    def graphs(self, overrides: Sequence[Sequence[str]]) -> Seen:
        """Twenty steps from a graph against twenty without."""
        results = []
        for graphed in (True, False):
            stack, step = self.stepper([self.config(*mine) for mine in overrides], graphed)
            stack.reseed(0)
            factor = torch.empty((), device=self.device)  # as the graph has it, in float32
            for i, batch in enumerate(batches(self.device, 20, 17)):
                step(*batch, 1 - i / 40 if graphed else factor.fill_(1 - i / 40))
            results.append([w.clone() for lane in range(stack.lanes) for w in stack.weights(lane).values()])
        worst = max((a - b).abs().max().item() for a, b in zip(*results, strict=True))
        return worst < 1e-5, f"largest difference {worst:.1e}, bit-equal {worst == 0}"

    def repeat(self, name: str, overrides: list[str]) -> Seen:
        """The same run twice, and interrupted and resumed: to the last bit."""
        config, folders = self.config(*overrides), [self.root / f"{name}-{i}" for i in range(3)]
        result = ours.train(config, folders[0])
        ours.train(config, folders[1])
        try:
            ours.train(config, folders[2], watch=lambda about, control: [StopAfter(2, control)])
        except Interrupted:
            ours.train(config, folders[2])
        first, again, resumed = map(outcome, folders)
        seen = f"repeat {first == again}, resume {first == resumed}"
        return first == again == resumed, f"{seen}, test {100 * result.summary['final/test_accuracy']:.1f} %"

    def memory(self, lanes: int) -> Seen:
        """What a pack was expected to take, beside what it took."""
        configs = self.rates(self.config("hidden=256", "epochs=1"), lanes, lanes)
        expected = sum(memory.of_lane(config, build.model(config)) for config in configs)
        if not self.cpu:
            torch.cuda.reset_peak_memory_stats(self.device)
        results = session.run_many([Task(c, self.root / f"memory-{i}") for i, c in enumerate(configs)], extras=False)
        peak = 0 if self.cpu else torch.cuda.max_memory_allocated(self.device)
        good = all(isinstance(result, Result) for result in results) and peak < 1.5 * expected
        return good, f"{lanes} lanes: expected {expected / 1e6:.0f} MB, peak {peak / 1e6:.0f} MB"

    def too_large(self) -> Seen:
        """A pack that is too large for the memory goes on in halves."""
        configs = self.rates(self.config("hidden=512", "epochs=1"), 64, 64)
        free, total = torch.cuda.mem_get_info(self.device)
        within, pack.SHARE = pack.SHARE, 1e9  # not by its shapes, so that the memory runs out
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved(self.device) + 400e6) / total)
        try:
            results = session.run_many([Task(c, self.root / f"large-{i}") for i, c in enumerate(configs)], extras=False)
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
            pack.SHARE = within
        finished = sum(isinstance(result, Result) for result in results)
        return finished == len(configs), f"{finished} of {len(configs)} finished with 400 MB of {free / 1e9:.0f} GB"

    def sweep(self, name: str, overrides: list[str]) -> Seen:
        """A whole command; every run finishes."""
        where = self.root / f"sweep-{name.replace(' ', '-')}"
        where.mkdir()
        given = {word.partition("=")[0] for word in overrides}
        typed = [word for word in SMALL if word.partition("=")[0] not in {*given, "threads"}]
        typed += [f"device={self.device}"] * ("device" not in given)
        done = run(["-m", "mnist_exp.train", "-m", *typed, *overrides], where)
        folders = [path.parent for path in where.glob("outputs/sweeps/*/*/*/ledger.json")]
        states = [ledger.read(folder).state for folder in folders]
        lines = [line for folder in folders for line in (folder / "train.log").read_text().splitlines()]
        how = {line.split("Training ")[1] for line in lines if "Training " in line}
        return done.returncode == 0 and {*states} == {"finished"}, f"{len(states)} runs; {how} {done.stderr[-200:]}"

    @torch.no_grad()
    def speed(self, hidden: str, lanes: int, rates: int, graphed: bool) -> Seen:
        """Microseconds of a step; networks of ten epochs on MNIST that would be trained in a second."""
        stack, step = self.stepper(self.rates(self.config(f"hidden={hidden}"), lanes, rates), graphed)
        if not self.cpu:
            torch.cuda.reset_peak_memory_stats(self.device)
        some, repeats, times = batches(self.device, 10, 64), 2 if self.cpu else 20, []
        for _ in range(4):
            self.wait()
            begun = time.perf_counter()
            for batch in some * repeats:
                step(*batch, 0.5)
            self.wait()
            times.append((time.perf_counter() - begun) / (10 * repeats))
        seconds = statistics.median(times[1:])
        peak = "" if self.cpu else f", peak {torch.cuda.max_memory_allocated(self.device) / 1e6:.0f} MB"
        networks = stack.lanes / (seconds * 10 * 860)  # an epoch of 55,000 images has 860 steps
        return (
            True,
            f"{1e6 * seconds:.0f} us a step, {1e6 * seconds / lanes:.2f} a lane, {networks:.2f} networks/s{peak}",
        )

    def deterministic(self) -> Seen:
        """What `deterministic` costs a small CNN."""
        times = {}
        for asked in ("false", "true"):
            folder = self.root / f"deterministic-{asked}"
            ours.train(self.config("model=small_cnn", "hidden=null", f"deterministic={asked}", "epochs=3"), folder)
            times[asked] = journal.read(folder)[-1]["metrics"]["time/epoch"]
        return True, f"an epoch takes {times['true'] / times['false']:.2f} times as long with deterministic=true"

    def ninety_nine(self) -> Seen:
        """Seconds of training until 99 % on the real MNIST, without start-up, beside what is published."""
        typed = [*NINETY_NINE.split(), "tracking=off", f"device={self.device}", "hydra.run.dir=run"]
        done = run(["-m", "mnist_exp.train", *typed], self.root)
        rows = [row["metrics"] for row in journal.read(self.root / "run")] if done.returncode == 0 else []
        spent, reached = 0.0, None
        for metrics in rows:
            spent += metrics["time/epoch"]
            reached = reached or (spent if metrics["test/accuracy"] >= 0.99 else None)
        best = max((100 * metrics["test/accuracy"] for metrics in rows), default=0.0)
        time_to = f"{reached:.2f} s" if reached else "not reached"
        return bool(rows), f"{time_to} (best {best:.2f} %); {PUBLISHED} {done.stderr[-150:] if not rows else ''}"

    def tests(self) -> Seen:
        """`pytest -m gpu`."""
        done = run(["-m", "pytest", "-q", "-m", "gpu", "tests/services/test_gpu.py"], Path(__file__).parents[1])
        return done.returncode == 0, (done.stdout.strip().splitlines() or [done.stderr])[-1]


@final
class StopAfter(Observer):
    """Requests a stop at the end of an epoch."""

    def __init__(self, epoch: int, control: Control) -> None:
        self.epoch, self.control = epoch, control

    def on_epoch(self, event: EpochEnd) -> None:
        self.control.signal = 2 if event.epoch == self.epoch else 0


def batches(device: torch.device, count: int, last: int) -> list[tuple[Tensor, Tensor]]:
    """*count* batches of 64, but for the last."""
    rng = torch.Generator().manual_seed(1)
    sizes = [64] * (count - 1) + [last]
    made = [(torch.randn(n, 784, generator=rng), torch.randint(0, 10, (n,), generator=rng)) for n in sizes]
    return [(images.to(device), labels.to(device)) for images, labels in made]


def outcome(folder: Path) -> tuple[bytes, list[dict[str, float]]]:
    """The bytes of the weights, and every metric but time."""
    rows = [row["metrics"] for row in journal.read(folder)]
    metrics = [{key: value for key, value in row.items() if not key.startswith("time/")} for row in rows]
    return (folder / "weights.safetensors").read_bytes(), metrics


def run(arguments: list[str], folder: Path) -> "subprocess.CompletedProcess[str]":
    """Python with *arguments*, in *folder*."""
    typed = [sys.executable, *arguments]
    return subprocess.run(typed, cwd=folder, capture_output=True, text=True, timeout=240, check=False)


def look_at(checks: Checks) -> Iterator[tuple[str, Callable[[], Seen]]]:
    """Every check, by name; a CPU has fewer."""
    cpu = checks.cpu
    for hidden, lanes in (([128], 1), ([7, 1000], 3), ([512, 256, 33], 2)):
        yield f"gradient against float64: {hidden} x {lanes}", partial(checks.gradients, hidden, lanes)
    for name, overrides in ({} if cpu else GRAPHS).items():
        yield f"graph against none: {name}", partial(checks.graphs, overrides)
    for name, typed in KINDS.items():
        if not (cpu and name in ("tf32", "strong_cnn bf16", "bf16")):
            yield f"repeat and resume: {name}", partial(checks.repeat, name, typed)
    yield "memory of a pack", partial(checks.memory, 4 if cpu else 64)
    if not cpu:
        yield "a pack that is too large", checks.too_large
    for units, lanes, rates in SPEEDS + ([] if cpu else ONLY_GPU):
        for graphed in (False,) if cpu else (False, True):
            name = f"speed: {units} x {lanes}, {rates} rates, {'' if graphed else 'no '}graph"
            yield name, partial(checks.speed, units, lanes, rates, graphed)
    yield "sweep: a grid in one pack", partial(checks.sweep, "grid", ["hidden=32,64", "lr=1e-3,3e-3", ONE])
    if not cpu:
        numbers = ",".join(f"cuda:{i}" for i in range(torch.cuda.device_count()))
        yield "sweep: by number", partial(checks.sweep, "by number", ["lr=1e-3,3e-3", f"device={numbers}"])
        yield (
            "sweep: networks by autograd",
            partial(checks.sweep, "cnn", ["model=small_cnn", *CNN, "seed=0,1"]),
        )
        yield "cost of deterministic", checks.deterministic
        yield "99 % on MNIST", checks.ninety_nine
        yield "pytest -m gpu", checks.tests


def main() -> None:
    """Looks at everything, and exits with 1 if something does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu", action="store_true", help="what a CPU can check, in under a minute")
    cpu: bool = parser.parse_args().cpu
    if not cpu and not torch.cuda.is_available():
        parser.error("torch sees no CUDA device; --cpu checks what a CPU can.")
    with tempfile.TemporaryDirectory() as root:
        checks, count = Checks(torch.device("cpu" if cpu else "cuda"), Path(root)), 0
        for name, look in look_at(checks):
            checks.see(name, look)
            count += 1
    where = "a CPU" if cpu else torch.cuda.get_device_name()
    seconds = time.perf_counter() - checks.begun
    console.print(f"{count - checks.failed} of {count} hold on {where}, torch {torch.__version__}; {seconds:.0f} s")
    sys.exit(bool(checks.failed))


if __name__ == "__main__":
    main()
