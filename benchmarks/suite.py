"""The benchmarks, one function each: what is compared, on what, how often."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from benchmarks import accuracy, floor, measure
from benchmarks.measure import Benchmark, Contender, Finished, compare, per_call
from benchmarks.peers import settings

GRID_WIDTHS, GRID_RATES = (64, 128, 256, 512), ("3e-4", "1e-3", "3e-3")
OURS = ["-m", "mnist_exp.train"]
SCALED = "DataLoader and Lightning: one and two epochs are measured and continued in a straight line"


@final
@dataclass
class Bench:
    """The settings of a measurement."""

    folder: Path
    """A scratch folder with an MLflow store, and the images in `root/` for torchvision."""
    quick: bool = False
    repeats: int | None = None
    """Counted rounds; None: the default of each benchmark."""
    overrides: list[str] = field(default_factory=list)
    """For our own sweeps, such as hydra/launcher=basic."""

    def rounds(self, usual: int) -> int:
        """The number of counted rounds."""
        return self.repeats or (1 if self.quick else usual)

    def ours(self, *arguments: str, watch_memory: bool = False) -> Finished:
        """Runs our command; when quick, on a few images."""
        few = ["data=synthetic", "checkpoint.model=false"] if self.quick and "data=synthetic" not in arguments else []
        launcher_given = any(argument.startswith("hydra/launcher=") for argument in arguments)
        extra = self.overrides if "-m" in arguments and not launcher_given else []
        return measure.command([*OURS, *arguments, *few, *extra], self.folder, watch_memory)

    def peer(self, name: str, *arguments: str, watch_memory: bool = False) -> Finished:
        """Runs a peer's command; when quick, a few steps an epoch."""
        few = ["steps=5"] if self.quick else []
        typed = ["-m", f"benchmarks.peers.{name}", *arguments, *few, f"root={self.folder / 'root'}"]
        return measure.command(typed, self.folder, watch_memory)


@contextmanager
def scratch() -> Iterator[Path]:
    """A temporary folder with a store and images, as after the first use."""
    from benchmarks import ours
    from mnist_exp.data import fetch

    folder = Path(tempfile.mkdtemp(prefix="mnist_exp-benchmarks-"))
    try:
        settings.link_images(fetch.ensure(ours.configure().data), folder / "root")
        measure.command([*OURS, "data=synthetic", "epochs=1"], folder)
        yield folder
    finally:
        shutil.rmtree(folder)


def step(bench: Bench) -> Benchmark:
    """One training step beside its floor, and the times of its parts."""
    import torch

    from benchmarks import ours
    from benchmarks.peers import eager

    widths = (64,) if bench.quick else (64, 128, 256, 512, 1024)
    devices = [("cpu", threads) for threads in dict.fromkeys((measure.cores(), 1))]
    devices += [("cuda", 1)] if torch.cuda.is_available() else []
    cases, before = [], torch.get_num_threads()
    for device, threads in devices:
        torch.set_num_threads(threads)
        images = ours.load(ours.configure("data=synthetic" if bench.quick else "data=mnist", f"device={device}"))
        few = ours.sample(images, (16 if bench.quick else 1024) * floor.BATCH)
        pixels, labels = few.train.take(few.train.rows)  # float32, as in such scripts
        done = torch.cuda.synchronize if device == "cuda" else None
        for hidden in widths:
            chosen = ours.configure(f"hidden={hidden}", f"threads={threads}", f"device={device}")
            training = ours.Training(chosen, few)
            steps = training.order.steps
            contenders: dict[str, Contender] = {
                "floor": per_call(floor.products(hidden, device), steps, done),
                "floor by torch.mm": per_call(floor.products(hidden, device, plain=True), steps, done),
                "ours": per_step(training.seconds, steps),
                "in-memory PyTorch": per_step(eager.epochs(hidden, pixels, labels), steps),
            }
            contenders |= {f"ours: {name}": per_call(part, steps, done) for name, part in training.pieces().items()}
            where = "GPU" if done else f"{threads} thread{'s' * (threads > 1)}"
            ratios = [("ours", "floor"), ("ours", "floor by torch.mm"), ("in-memory PyTorch", "ours")]
            cases.append(compare(f"hidden={hidden}, {where}", contenders, bench.rounds(7), ratios, factor=1e6))
    torch.set_num_threads(before)
    notes = [
        "floor: the five matrix products of the step alone, by the faster of torch's libraries: MKL, into memory that "
        "is there already, or oneDNN, which brings its own; by torch.mm, which is MKL, the same where that is faster",
        "ours: an epoch of the training loop itself (batches, loss, gradient, Adam, scores), divided by its steps",
        "ours: take, gradient, optimizer, tally: parts of the step, each called alone with a warm cache",
    ]
    if torch.cuda.is_available():
        notes.append(
            f"GPU: {torch.cuda.get_device_name()}; there, ours is a CUDA graph, all else is launched one by one"
        )
    return Benchmark("step", "One training step, 784-hidden-10, batch 64", "us", cases, notes)


def per_step(epoch: Contender, steps: int) -> Contender:
    """A contender that runs an *epoch* of *steps* steps and returns the seconds of one."""
    return lambda: epoch() / steps


def epoch(bench: Bench) -> Benchmark:
    """One epoch of the default network with its evaluation, start-up left out."""
    scale = 150
    steps = -(-settings.TRAIN // floor.BATCH)

    def last(peer: str) -> float:
        """Seconds of the second epoch of *peer*, by its own clock."""
        bench.peer(peer, "epochs=2")
        return float((bench.folder / "seconds.txt").read_text(encoding="utf-8"))

    def lightning() -> float:
        more = bench.peer("lightning_template", "epochs=2", f"steps={2 * scale}").seconds
        less = bench.peer("lightning_template", "epochs=2", f"steps={scale}").seconds
        return (more - less) / (2 * scale) * steps

    def ours() -> float:
        from benchmarks.ours import epoch_seconds

        bench.ours("epochs=2", "tracking=off")
        return epoch_seconds(bench.folder)[-1]

    contenders: dict[str, Contender] = {
        "ours": ours,
        "in-memory PyTorch": lambda: last("eager"),
        "DataLoader": lambda: last("dataloader"),
    }
    if not bench.quick:
        contenders["Lightning"] = lightning
    ratios = [(name, "ours") for name in contenders if name != "ours"]
    case = compare("hidden=128", contenders, bench.rounds(3), ratios, warmup=0)
    notes = [
        "second epoch of a fresh process; ours evaluates on 5,000 validation and 10,000 test images, "
        "in-memory PyTorch and DataLoader on the test images",
        f"Lightning: training steps only, the difference of 2 epochs of {2 * scale} and of {scale} steps, "
        f"scaled to {steps} steps",
    ]
    return Benchmark("epoch", "One epoch of the default network", "s", [case], notes)


def train(bench: Bench) -> Benchmark:
    """`train epochs=10`: the whole command, start-up included."""
    epochs = 2 if bench.quick else 10

    def line(peer: str) -> Contender:
        return lambda: straight(lambda n: bench.peer(peer, f"epochs={n}").seconds, epochs)

    contenders: dict[str, Contender] = {
        "ours": lambda: bench.ours(f"epochs={epochs}").seconds,
        "ours, tracking=off": lambda: bench.ours(f"epochs={epochs}", "tracking=off").seconds,
        "in-memory PyTorch": lambda: bench.peer("eager", f"epochs={epochs}").seconds,
        "DataLoader": line("dataloader"),
        "Lightning": line("lightning_template"),
    }
    ratios = [(name, "ours") for name in contenders if not name.startswith("ours")]
    case = compare(f"epochs={epochs}", contenders, bench.rounds(3), ratios, warmup=0)
    notes = [SCALED, "ours tracks in MLflow and keeps checkpoints, a log and the exported model; the peers do not"]
    return Benchmark("train", "The whole command for the default network", "s", [case], notes)


def straight(seconds: Callable[[int], float], epochs: int) -> float:
    """Seconds of a command with *epochs* epochs, extrapolated from one and two."""
    one, two = seconds(1), seconds(2)
    return one + (epochs - 1) * (two - one)


def grid(bench: Bench) -> Benchmark:
    """The 12-point grid: every way to sweep, and the floor of its matrix products on all cores."""
    widths = (8,) if bench.quick else GRID_WIDTHS
    epochs = 1 if bench.quick else 10
    points = len(widths) * len(GRID_RATES)
    steps = len(GRID_RATES) * epochs * -(-settings.TRAIN // floor.BATCH)
    sweep = ["-m", f"hidden={','.join(map(str, widths))}", f"lr={','.join(GRID_RATES)}"]
    workers = measure.cores()
    joblib = ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={workers}"]

    def lightning() -> float:
        pair = f"hidden={widths[0]},{widths[-1]}"
        one, two = (bench.peer("lightning_template", "-m", pair, "lr=1e-3", f"epochs={n}").seconds for n in (1, 2))
        return one + (points / 2 * epochs - 1) * (two - one)

    with floor.Machine(workers) as machine:
        short = 20 if bench.quick else 1500  # measured steps at each width; scaled to all
        contenders: dict[str, Contender] = {
            "floor, one process": lambda: sum(machine.threads(w, short) for w in widths) * steps,
            "floor, one process a core": lambda: sum(machine.processes(w, short) for w in widths) * steps,
            "ours": lambda: bench.ours(*sweep, f"epochs={epochs}").seconds,
            "in-memory PyTorch, joblib": lambda: (
                bench.peer(
                    "joblib_sweep", *sweep, f"epochs={epochs}", "threads=1", f"hydra.launcher.n_jobs={workers}"
                ).seconds
            ),
            "ours, joblib": lambda: bench.ours(*sweep, f"epochs={epochs}", "threads=1", *joblib).seconds,
            "Lightning, serial": lightning,
        }
        case = compare(f"{points} points, epochs={epochs}", contenders, bench.rounds(2), warmup=0)
    low = min((name for name in case.costs if name.startswith("floor")), key=lambda name: case.costs[name].median)
    pairs = [("ours", low), *((name, "ours") for name in contenders if not name.startswith(("ours", "floor")))]
    pairs.append(("ours, joblib", "ours"))
    for a, b in pairs:
        rounds = zip(case.costs[a].values, case.costs[b].values, strict=True)
        case.ratios[f"{a} / {b}"] = measure.Spread([x / y for x, y in rounds])
    notes = [
        f"{low} is the faster floor; {short} steps of each width are measured and scaled to all",
        "Lightning: 2 points (the narrowest and the widest) with 1 and with 2 epochs, continued in a straight line; "
        "start-up and set-up are counted once, in its favour",
        "in-memory PyTorch neither tracks nor keeps anything",
    ]
    return Benchmark("grid", "The grid hidden=64,128,256,512 lr=3e-4,1e-3,3e-3", "s", [case], notes)


def hundred(bench: Bench) -> Benchmark:
    """A hundred points at hidden=64: does packing pay?"""
    side, epochs, hidden = (2, 1, 8) if bench.quick else (10, 10, 64)
    rates = ",".join(f"{1e-4 * 1.6**i:.2g}" for i in range(side))
    sweep = ["-m", f"hidden={hidden}", f"lr={rates}", f"seed=range(0,{side})", f"epochs={epochs}"]
    contenders: dict[str, Contender] = {"ours": lambda: bench.ours(*sweep).seconds}
    if not any(override.startswith("hydra/launcher=") for override in bench.overrides):
        contenders["ours, pack=off"] = lambda: bench.ours(*sweep, "hydra.launcher.pack=off").seconds
    ratios = [("ours, pack=off", "ours")]
    case = compare(f"{side**2} points, epochs={epochs}", contenders, bench.rounds(2), ratios, warmup=0)
    return Benchmark("hundred", f"{side} learning rates times {side} seeds at hidden={hidden}", "s", [case])


EMPTY_APP = """
import sys
from pathlib import Path

import hydra
import hydra_plugins

if "+plugins=no" in sys.argv:
    hydra_plugins.__path__ = [p for p in hydra_plugins.__path__ if not Path(p, "mnist_exp").exists()]

hydra.main(version_base="1.3", config_path=None)(lambda cfg: None)()
"""
"""Another application: Hydra loads all installed plugins; `+plugins=no` hides ours."""


def startup(bench: Bench) -> Benchmark:
    """Time until training begins, and overhead of a short command beyond its imports and its training."""
    from benchmarks.ours import epoch_seconds

    training: list[float] = []

    def whole() -> float:
        seconds = bench.ours("epochs=1").seconds
        training.append(epoch_seconds(bench.folder)[0])
        return seconds

    contenders: dict[str, Contender] = {
        "import torch": lambda: measure.command(["-c", "import torch"], bench.folder).seconds,
        "import torch, mlflow, hydra": lambda: (
            measure.command(["-c", "import torch, mlflow, hydra"], bench.folder).seconds
        ),
        "ours, to the first step": lambda: bench.ours("epochs=1").first_line,
        "ours, epochs=1": whole,
    }
    app = bench.folder / "app.py"
    app.write_text(EMPTY_APP, encoding="utf-8")
    for name, options in {"an empty Hydra app": [], "the same without our plugins": ["+plugins=no"]}.items():
        contenders[name] = lambda options=options: measure.command([str(app), *options], bench.folder).seconds  # type: ignore[misc]
    if not bench.quick:
        contenders["in-memory PyTorch, epochs=1"] = lambda: bench.peer("eager", "epochs=1").seconds
    pairs = [("ours, to the first step", "import torch"), ("an empty Hydra app", "the same without our plugins")]
    case = compare("default network", contenders, bench.rounds(7), pairs)
    own = training[-len(case.costs["ours, epochs=1"].values) :]
    case.costs["ours, its own training"] = measure.Spread(own)
    imports = case.costs["import torch, mlflow, hydra"].values
    whole_costs = case.costs["ours, epochs=1"].values
    case.ratios["ours, epochs=1 / (imports + its own training)"] = measure.Spread(
        [w / (i + t) for w, i, t in zip(whole_costs, imports, own, strict=True)]
    )
    notes = ["to the first step: until the header, which is printed when everything is ready; the store exists"]
    return Benchmark("startup", "Start-up", "s", [case], notes)


def memory(bench: Bench) -> Benchmark:
    """Peak memory of the command and its children together."""
    sweep = ["-m", "hidden=64,128", "lr=1e-3,3e-3", "epochs=2"]
    contenders: dict[str, Contender] = {
        "import torch": lambda: measure.command(["-c", "import torch"], bench.folder, watch_memory=True).peak,
        "ours, tracking=off": lambda: bench.ours("epochs=2", "tracking=off", watch_memory=True).peak,
        "ours": lambda: bench.ours("epochs=2", watch_memory=True).peak,
        "ours, 4 points": lambda: bench.ours(*sweep, watch_memory=True).peak,
        "in-memory PyTorch": lambda: bench.peer("eager", "epochs=1", watch_memory=True).peak,
    }
    if not bench.quick:
        contenders["in-memory PyTorch, joblib, 4 points"] = lambda: (
            bench.peer(
                "joblib_sweep", *sweep, "threads=1", f"hydra.launcher.n_jobs={measure.cores()}", watch_memory=True
            ).peak
        )
        for name, peer in (("DataLoader", "dataloader"), ("Lightning", "lightning_template")):
            contenders[name] = lambda peer=peer: bench.peer(peer, "epochs=1", watch_memory=True).peak  # type: ignore[misc]
    case = compare("hidden=128", contenders, bench.rounds(2), warmup=0)
    notes = [
        "proportional set size of all processes, looked at every 20 ms; ours includes the process that talks to MLflow",
        "ours, tracking=off is one worker by itself",
    ]
    return Benchmark("memory", "Peak memory", "MiB", [case], notes)


def growth(bench: Bench) -> Benchmark:
    """How cost grows with points, epochs, images, width and depth."""
    from benchmarks import ours

    factors = (1, 2) if bench.quick else (1, 2, 4, 8)
    width, base = (8, 640) if bench.quick else (64, 6400)

    def epoch_of(*overrides: str, images: int = 2 * base) -> Contender:
        made = ["data=synthetic", f"data.train_images={images}", "data.val_size=0", "data.test_images=1"]
        chosen = ours.configure(*made, *overrides)
        return ours.Training(chosen, ours.load(chosen)).seconds

    rates = [f"{1e-3 + i * 1e-4:.4f}" for i in range(max(factors))]
    few = ["data=synthetic", f"data.train_images={4 * base}"]
    kinds: dict[str, dict[int, Contender]] = {
        "points": {
            k: (lambda k=k: bench.ours("-m", *few, f"hidden={width}", "epochs=2", f"lr={','.join(rates[:k])}").seconds)  # type: ignore[misc]
            for k in factors
        },
        "epochs": {
            k: (lambda k=k: bench.ours(*few, f"hidden={width}", f"epochs={5 * k}").seconds)  # type: ignore[misc]
            for k in factors
        },
        "images": {k: epoch_of(f"hidden={width}", images=k * base) for k in factors},
        "width": {k: epoch_of(f"hidden={k * width}") for k in factors},
        "depth": {k: epoch_of(f"hidden=[{','.join([str(2 * width)] * k)}]") for k in factors},
    }
    cases = []
    for kind, contenders in kinds.items():
        named = {f"x {k}": contender for k, contender in contenders.items()}
        ratios = [(f"x {k}", "x 1") for k in factors[1:]]
        cases.append(compare(kind, named, bench.rounds(3), ratios))
    notes = [
        "points and epochs: the whole command, start-up included; images, width and depth: an epoch of the loop",
        f"x 1 is: 1 point, 5 epochs, {base:,} images, hidden={width}, one layer of {2 * width}",
    ]
    return Benchmark("growth", "How cost grows", "s", cases, notes)


def quality(bench: Bench) -> Benchmark:
    """Test accuracy of the default network, ours and the plain path's."""
    return accuracy.compare_paths(
        bench.folder / "root", seeds=2 if bench.quick else 5, epochs=1 if bench.quick else 10, quick=bench.quick
    )


ALL: dict[str, Callable[[Bench], Benchmark]] = {
    "step": step,
    "epoch": epoch,
    "train": train,
    "grid": grid,
    "hundred": hundred,
    "startup": startup,
    "memory": memory,
    "growth": growth,
    "accuracy": quality,
}
