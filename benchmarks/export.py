"""What it costs a run to export its network: processor seconds of short runs that take turns.

    python -m benchmarks.export

Without an export, by the template that an earlier run has left in the user's cache, and as the first run of its kind,
which loads torch's exporter and leaves the template. Each has a cache of its own.
"""

import statistics
import tempfile
from pathlib import Path

from benchmarks.warm import seconds

RUN = ["data=synthetic", "epochs=1", "tracking=off", "threads=1"]
ROUNDS = 3


def main() -> None:
    """Prints the median of each, and of the differences from a run without export."""
    with tempfile.TemporaryDirectory() as scratch:
        kept = {"XDG_CACHE_HOME": str(Path(scratch, "kept"))}
        seconds(RUN, kept)  # leaves the template
        costs: dict[str, list[float]] = {"no export": [], "by a template": [], "the first of its kind": []}
        for turn in range(ROUNDS):
            costs["no export"].append(seconds([*RUN, "checkpoint.model=false"], kept))
            costs["by a template"].append(seconds(RUN, kept))
            costs["the first of its kind"].append(seconds(RUN, {"XDG_CACHE_HOME": str(Path(scratch, str(turn)))}))
    print("| export | the whole run | more than without |\n| --- | ---: | ---: |")  # noqa: T201
    for name, each in costs.items():
        more = statistics.median(a - b for a, b in zip(each, costs["no export"], strict=True))
        print(f"| {name} | {statistics.median(each):.2f} s | {more:.2f} s |")  # noqa: T201


if __name__ == "__main__":
    main()
