"""What workers cost that start afresh, as on Windows and macOS, and not as forks of a process that has loaded torch.

    python -m benchmarks.spawn

Processor seconds of whole sweeps that take turns, each point trained alone. A worker more is an import of torch more, a
point more is none.
"""

import statistics
import tempfile

from benchmarks.warm import seconds

SWEEP = ["-m", "data=synthetic", "epochs=1", "hidden=16", "threads=1", "tracking=off", "hydra.launcher.pack=off"]
CASES = [(1, 4), (4, 4), (1, 12)]
"""Workers, and points of the sweep."""
STARTED = "from mnist_exp import system, train; system.start_method = lambda: {method!r}; train.cli()"
METHODS = ("forkserver", "spawn")
ROUNDS = 2


def sweep(method: str, workers: int, points: int, cache: str) -> float:
    """Processor seconds of a sweep whose workers start by *method*."""
    typed = [*SWEEP, f"hydra.launcher.workers={workers}", f"seed={','.join(map(str, range(points)))}"]
    return seconds(typed, {"XDG_CACHE_HOME": cache}, ["-c", STARTED.format(method=method)])


def main() -> None:
    """Prints the medians, and that of the ratios of each round."""
    with tempfile.TemporaryDirectory() as cache:
        sweep("forkserver", 1, 1, cache)  # leaves the template of the network's export
        print("| workers | points | forked | afresh | ratio |\n| ---: | ---: | ---: | ---: | ---: |")  # noqa: T201
        for workers, points in CASES:
            rounds = [[sweep(method, workers, points, cache) for method in METHODS] for _ in range(ROUNDS)]
            forked, afresh = (statistics.median(each) for each in zip(*rounds, strict=True))
            ratio = statistics.median(b / a for a, b in rounds)
            print(f"| {workers} | {points} | {forked:.1f} s | {afresh:.1f} s | {ratio:.2f} |", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
