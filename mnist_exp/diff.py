"""`python -m mnist_exp.diff`, or `mnist-exp-diff`: how two runs differ, image by image, too."""

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from mnist_exp import config
from mnist_exp.config import Config
from mnist_exp.config.identity import has_effect
from mnist_exp.console import exits
from mnist_exp.console.arguments import Parser
from mnist_exp.console.formats import SPLIT_NAMES, loss, percent, points, seconds, short, value
from mnist_exp.console.terminal import console, say, shown, side_by_side, tell
from mnist_exp.disk import hits, journal, ledger, trust
from mnist_exp.disk.journal import Row
from mnist_exp.disk.layout import RunFolder
from mnist_exp.disk.ledger import Ledger
from mnist_exp.errors import ConfigError
from mnist_exp.rerun import RECORDS, differences
from mnist_exp.results import names

ABOUT = """\
Compares two runs: settings, code, versions and machine; accuracies, losses and curves; and image by image what one
gets right and the other does not, with how sure the difference is."""
EXAMPLES = """\
examples
  python -m mnist_exp.diff best last
  python -m mnist_exp.diff outputs/sweeps/2026-01-31/14-03-22-9f8e7d/{0,5}
  python -m mnist_exp.diff best last --json | jq .images.test.only_first

exit codes: 0 compared · 2 usage, or no such run
"""
EPOCHS = 10  # of the curves, at most
LISTED = 12  # images on the screen


@final
@dataclass(frozen=True)
class Side:
    """One of the two runs."""

    folder: Path
    config: Config
    entry: Ledger
    rows: list[Row]


def main(arguments: Sequence[str]) -> None:
    """Compares the two runs that *arguments* name.

    Raises:
        ExperimentError: there is no such run, or it has no ledger or config.
        SystemExit: usage (2), or `--help` (0).
    """
    parser = Parser("diff", ABOUT, EXAMPLES)
    parser.add_overrides({}, "run run", "folders, MLflow run ids, last, best, or best:<sweep>", names.offered)
    parser.add_argument("--json", action="store_true", help="print everything as one JSON object")
    typed = parser.read(arguments)
    if len(typed.names) != 2:
        raise ConfigError("Which two runs?", "Name them: python -m mnist_exp.diff best last")
    one, other = (side(name) for name in typed.names)
    facts = compare(one, other)
    if typed.json:
        console.out(json.dumps(facts, allow_nan=False), highlight=False)
    else:
        _show(one, other, facts)


def side(name: str) -> Side:
    """The run called *name*.

    Raises:
        ExperimentError: as `names.one`, or a record is missing or damaged.
    """
    folder = names.one(name, needed=RECORDS, useful=(RunFolder.hits,))
    return Side(folder, trust.load(folder), ledger.read(folder), journal.read(folder))


def compare(one: Side, other: Side) -> dict[str, Any]:
    """What `--json` prints; each pair is that of *one*, then that of *other*.

    Keys: `runs`, the folders; `settings` that differ; `made_with`, sentences about code, data, versions and machine;
    `results`, the final metrics; `curves`, by metric and epoch; `images`, by split, or the reason why there are none.
    """
    flat = [config.flatten(config.to_dict(each.config)) for each in (one, other)]
    keys = [key for key in dict.fromkeys([*flat[0], *flat[1]]) if has_effect(key)]
    settings = {key: [each.get(key) for each in flat] for key in keys if flat[0].get(key) != flat[1].get(key)}
    made = [line for line in differences(one.entry, other.entry) if not line.startswith("config:")]
    metrics = [key for key in one.entry.summary if key in other.entry.summary]
    curves = [key for key in (one.rows and one.rows[0]["metrics"]) or () if not key.startswith("time/")]
    return {
        "format": 1,
        "runs": [str(one.folder), str(other.folder)],
        "settings": settings,
        "made_with": made,
        "results": {key: [one.entry.summary[key], other.entry.summary[key]] for key in metrics},
        "curves": {key: [[row["metrics"].get(key) for row in each.rows] for each in (one, other)] for key in curves},
        "images": _images(one, other),
    }


def _images(one: Side, other: Side) -> dict[str, Any] | str:
    """By split, which images only one of them gets right; or why that is unknown."""
    if one.entry.dataset.get("digest") != other.entry.dataset.get("digest"):
        return "They saw other images."
    keys = ("validating", "split_seed", "stratify", "folds", "fold")
    same = all(getattr(one.config.data, key) == getattr(other.config.data, key) for key in keys)
    pairs = {split: [hits.read(each.folder, split) for each in (one, other)] for split in ("val", "test")}
    compared = {}
    for split, (first, second) in pairs.items():
        if first is None or second is None or len(first) != len(second) or (split == "val" and not same):
            continue
        from mnist_exp.results.statistics import Scores, difference

        gain = difference(*(Scores({0: float(each.mean())}, len(each), {0: each}) for each in (second, first)))
        compared[split] = {
            "images": len(first),
            "neither": int((~first & ~second).sum()),
            "only_first": (first & ~second).nonzero()[0].tolist(),
            "only_second": (second & ~first).nonzero()[0].tolist(),
            "difference": gain.mean,
            "interval": list(gain.interval()),
        }
    return compared or "At least one of them did not keep which images it gets right, or has not finished."


def _show(one: Side, other: Side, facts: dict[str, Any]) -> None:
    for letter, each in zip("AB", (one, other), strict=True):
        say(f"{letter}: {shown(each.folder)}  {short(each.entry.name)} ({each.entry.state})")
    side_by_side("setting", [[key, *map(value, pair)] for key, pair in facts["settings"].items()])
    for line in facts["made_with"] or ["Code, data, versions and machine are the same."]:
        say(line)
    side_by_side("result", [[key, *(_result(key, each) for each in pair)] for key, pair in facts["results"].items()])
    key = "val/accuracy" if "val/accuracy" in facts["curves"] else "train/accuracy"
    ours, theirs = facts["curves"].get(key, [[], []])
    pairs = list(enumerate(itertools.zip_longest(ours, theirs), start=1))
    step = max(1, math.ceil(len(pairs) / EPOCHS))
    side_by_side(key, [[f"epoch {n}", *(_result(key, each) for each in pair)] for n, pair in pairs[::-step][::-1]])
    if isinstance(facts["images"], str):
        say(f"Image by image they cannot be compared. {facts['images']}")
        return
    for split, about in facts["images"].items():
        low, high = map(points, about["interval"])
        tell(
            f"Of {about['images']:,} {SPLIT_NAMES[split]} images A alone gets {len(about['only_first'])} right, "
            f"B alone {len(about['only_second'])}, neither {about['neither']}: "
            f"B minus A is {points(about['difference'])} points (95 %: {low} to {high}, of these two networks)."
        )
        for letter, key in (("A", "only_first"), ("B", "only_second")):
            listed = ", ".join(map(str, about[key][:LISTED])) + (", …" if len(about[key]) > LISTED else "")
            if listed:
                say(f"  only {letter}: {listed}")


def _result(key: str, number: float | None) -> str:
    if number is None:
        return "–"
    if key.endswith("accuracy"):
        return percent(number)
    if key.endswith("loss"):
        return loss(number)
    return seconds(number) if "time/" in key else value(number)


cli = exits.command(main)

if __name__ == "__main__":
    cli()
