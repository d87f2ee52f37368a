"""`python -m mnist_exp.rerun`, or `mnist-exp-rerun`: does a result come out again?"""

from collections.abc import Sequence
from pathlib import Path

from mnist_exp import config
from mnist_exp.config import Config, compose
from mnist_exp.config.numerals import brief
from mnist_exp.console import exits, terminal
from mnist_exp.console.arguments import Key, Parser
from mnist_exp.console.formats import plural
from mnist_exp.console.terminal import say, shown
from mnist_exp.disk import journal, lanes, ledger, trust
from mnist_exp.disk.journal import Row
from mnist_exp.disk.layout import RunFolder, State
from mnist_exp.disk.ledger import Ledger
from mnist_exp.errors import ConfigError, DivergedError, ExperimentError
from mnist_exp.results import names as naming
from mnist_exp.run import one

ABOUT = """\
Repeats a run from its own config in a new folder, and says whether every loss and accuracy came out the same, to the
last bit, and what differs that could explain it: code, data, versions, machine."""
RUN = Key("last", "which one: a folder, an MLflow run id, last, best, or best:<sweep>", naming.offered)
RECORDS = (RunFolder.config, RunFolder.ledger, RunFolder.journal)
EXAMPLES = """\
examples
  python -m mnist_exp.rerun
  python -m mnist_exp.rerun run=best
  python -m mnist_exp.rerun run=outputs/runs/2026-01-31/14-03-22-9f8e7d

exit codes: 0 the same to the last bit · 1 not the same, whatever the reason · 2 usage, or nothing to repeat
"""


def main(arguments: Sequence[str]) -> None:
    """Repeats the run that *arguments* name.

    Raises:
        ExperimentError: the metrics differ (exit code 1); or there is no such run, or it cannot be repeated.
        SystemExit: usage (2), or `--help` (0).
    """
    parser = Parser("rerun", ABOUT, EXAMPLES)
    parser.add_overrides({"run": RUN})
    typed = parser.read(arguments)
    folder = naming.one(typed.run, needed=RECORDS, useful=(RunFolder.lanes,))
    before, rows = ledger.read(folder), journal.read(folder)
    if not rows:
        raise ConfigError(f"{shown(folder)} finished no epoch: there is nothing to compare with.")
    settings = trust.load(folder)
    if not trust.own(folder):
        settings.tracking.uri = compose().tracking.uri
    settings.resume, settings.force, settings.tracking.register = None, False, None
    settings.tags["rerun.of"] = shown(folder)
    again = repeat(settings, before, folder)
    after = ledger.read(again)
    different = differences(before, after)
    for difference in different:
        say(f"Differs: {difference}")
    if not different:
        say("Code, config, data, versions and machine are the same.")
    if verdict := compare(rows, journal.read(again), whole=before.state == State.FINISHED):
        raise ExperimentError(
            f"The metrics did not come out the same: {verdict}",
            "What differs may explain it." if different else "Nothing that is recorded differs.",
        )
    say(f"Bit-equal: the losses and accuracies of {plural(len(rows), 'epoch')} are those of {shown(folder)}.")


def repeat(settings: Config, before: Ledger, source: Path) -> Path:
    """Trains *settings* in a new folder as the run in *source* was trained, and returns the folder.

    A loss that diverges again is a result, too.
    """
    folder = Path(config.new_folder("outputs/runs"))
    folder.mkdir(parents=True)
    lanes.copy(source, folder)
    with terminal.log_to(RunFolder(folder).log):
        try:
            typed = before.overrides if trust.own(source) else []  # a report prints them to copy
            one.train(settings, folder, typed, changes=before.threads_after)
        except DivergedError as error:
            say(f"It failed: {error.message}")
    return folder


def differences(before: Ledger, after: Ledger) -> list[str]:
    """How the makings of two runs differ: config, code, data, versions, machine, threads."""
    different = []
    for what in ("config", "code", "data"):
        was, now = before.fingerprint.get(what, "unknown"), after.fingerprint.get(what, "unknown")
        if was != now:
            commits = [entry.tags.get("git.commit", "")[:10] for entry in (before, after)] if what == "code" else []
            at = f" (commits {' and '.join(commits)})" if all(commits) and len(set(commits)) > 1 else ""
            different.append(f"{what}: fingerprint {was}, now {now}{at}")
    for tag in sorted(before.tags.keys() | after.tags.keys()):
        was, now = before.tags.get(tag, "none"), after.tags.get(tag, "none")
        if tag.startswith("version.") and was != now:
            different.append(f"{tag.removeprefix('version.')}: {was}, now {now}")
    if before.host != after.host:
        different.append(f"machine: {before.host}, now {after.host}")
    if (was := _threads(before)) != (now := _threads(after)):
        different.append(f"threads: {was}, now {now}")
    return different


def _threads(entry: Ledger) -> str:
    """`2`, or `2, 1 after epoch 3`."""
    changes = [f"{some} after epoch {epoch}" for epoch, some in entry.threads_after.items()]
    return ", ".join([str(entry.threads or "not recorded"), *changes])


def compare(before: Sequence[Row], after: Sequence[Row], whole: bool) -> str:
    """The sentence about the first number that differs and the largest difference; empty if all are equal.

    Args:
        whole: Whether *before* is complete. If not, *after* may have more epochs.
    """
    if len(after) < len(before) or (whole and len(after) > len(before)):
        return f"{plural(len(before), 'epoch')}, now {len(after)}."
    first, largest = "", 0.0
    for old, new in zip(before, after, strict=False):
        was, now = ({k: v for k, v in row["metrics"].items() if not k.startswith("time/")} for row in (old, new))
        if was.keys() != now.keys():
            return f"epoch {old['epoch']} has {', '.join(sorted(was.keys() ^ now.keys()))} in one of them only."
        for key in was:
            if was[key] != now[key]:
                first = first or f"{key} of epoch {old['epoch']} was {was[key]!r}, now {now[key]!r}"
                largest = max(largest, abs(was[key] - now[key]))
    return f"{first}; the largest difference is {brief(largest, 2)}." if first else ""


cli = exits.command(main, prints_result=False)

if __name__ == "__main__":
    cli()
