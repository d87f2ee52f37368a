"""`python -m benchmarks.spin`: a step on all cores, idle and under load, by spin time of waiting threads."""

import os
import subprocess
import sys
import time

from rich.console import Console
from rich.table import Table

STEP = """
import sys, time, torch
from mnist_exp.engine.closed_form import MLPStack
from mnist_exp.engine.fused import Fused
from mnist_exp.models import MLP
torch.set_flush_denormal(True)
images, labels = torch.randn(64, 784), torch.randint(0, 10, (64,))
stack = MLPStack([MLP(128)], [0])
optimizer = Fused(torch.optim.Adam, stack.groups())
times, end = [], time.monotonic() + 2
while time.monotonic() < end or not times:
    began = time.perf_counter()
    stack.gradient(images, labels)
    optimizer.step()
    times.append(time.perf_counter() - began)
print(sum(times) / len(times))
"""
SPINS = ("", "20000", "10000", "5000", "2000", "1000", "0")


def main() -> None:
    """Prints the mean step in ms for each setting, beside 0, 1 and 2 busy processes; three rounds."""
    times: dict[tuple[str, int], list[float]] = {}
    for _ in range(3):
        for busy in (0, 1, 2):
            others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
            time.sleep(0.5)
            for spin in SPINS:
                kept = {key: value for key, value in os.environ.items() if key != "GOMP_SPINCOUNT"}
                # mnist_exp sets its own value unless there is one; 30e9 is libgomp's default where cores are free
                env = {**kept, "GOMP_SPINCOUNT": spin or "30000000000"}
                done = subprocess.run([sys.executable, "-c", STEP], env=env, capture_output=True, text=True, check=True)
                times.setdefault((spin, busy), []).append(1e3 * float(done.stdout))
            for other in others:
                other.kill()
                other.wait()
    table = Table("GOMP_SPINCOUNT", "alone, ms", "beside 1", "beside 2", title="mean step at hidden=128, all cores")
    for spin in SPINS:
        shown = [f"{sorted(times[spin, busy])[1]:.2f}" for busy in (0, 1, 2)]
        table.add_row(spin or "(libgomp's own)", *shown)
    Console().print(table)


if __name__ == "__main__":
    main()
