"""What each point of a grid costs the driver before the first job starts, and as it is handed out.

    python -m benchmarks.points

Processor milliseconds. `PYTHONPATH=<another checkout> python -P <this file>` measures that one, for a comparison.
"""

import time
from collections.abc import Callable

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from mnist_exp import config
from mnist_exp.sweep import packing, points
from mnist_exp.sweep.composing import Composer

POINTS = [[f"seed={seed}", "hidden=8", "data=synthetic", "epochs=1"] for seed in range(200)]


def each(work: Callable[[], object]) -> float:
    """Milliseconds of processor time that *work* on all points takes for each."""
    before = time.process_time()
    work()
    return 1e3 * (time.process_time() - before) / len(POINTS)


def main() -> None:
    """Prints the cost of each step."""
    config.register()
    with initialize_config_dir(config.conf_dir(), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        composer = Composer(loader, loader.load_configuration("train", [], run_mode=RunMode.MULTIRUN))
        jobs = points.check(composer, POINTS)  # the first time imports torch, and fills what is kept
        configs = [job.config for job in jobs if job.config]
        packing.divide(configs[:1], 2, "auto", gpu=False)
        costs = {
            "checked": each(lambda: points.check(composer, POINTS)),
            "divided into packs": each(lambda: packing.divide(configs, 2, "auto", gpu=False)),
            "composed for its worker": each(lambda: [composer.job(point) for point in POINTS]),
        }
    for name, cost in costs.items():
        print(f"{name}: {cost:.2f} ms")  # noqa: T201


if __name__ == "__main__":
    main()
