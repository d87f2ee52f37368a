"""`python -m benchmarks.live`: what the page that follows a sweep costs it, in turns with a sweep without."""

import argparse
import tempfile
from pathlib import Path

from benchmarks import measure, table
from benchmarks.measure import Benchmark

ROUNDS, EPOCHS = 3, 30  # under a minute each on two cores
CODE = "from mnist_exp.sweep import live; live.FIRST = {first}; from mnist_exp.train import cli; cli()"
FOLLOWED, ALONE = "with a page that follows", "with a page at its end"


def main() -> None:
    """Times whole commands; the sweep has as many runs as two for each core."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.live", description=__doc__)
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="fewer are shown, not kept")
    epochs = parser.parse_args().epochs
    typed = ["-m", f"seed=range(0,{2 * measure.cores()})", f"epochs={epochs}", "tracking=off"]
    typed += ["hydra.launcher.pack=off"]
    with tempfile.TemporaryDirectory() as scratch:

        def contender(first: str) -> measure.Contender:
            return lambda: measure.command(["-c", CODE.format(first=first), *typed], Path(scratch)).seconds

        sweeps = {FOLLOWED: contender("5.0"), ALONE: contender("1e6")}
        case = measure.compare("hidden=128 on MNIST", sweeps, ROUNDS, [(FOLLOWED, ALONE)])
    benchmark = Benchmark("live", "A sweep that a page follows", "s", [case])
    table.finish(benchmark, epochs == EPOCHS)


if __name__ == "__main__":
    main()
