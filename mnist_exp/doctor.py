"""`python -m mnist_exp.doctor`, or `mnist-exp-doctor`: what stands in the way, and how to mend it."""

import importlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Literal, final
from urllib.parse import quote

from packaging.requirements import Requirement
from rich.markup import escape

from mnist_exp import processor, system
from mnist_exp.config import compose, options, stores
from mnist_exp.config.secrets import hide, masked, without_login
from mnist_exp.console import exits
from mnist_exp.console.arguments import Parser
from mnist_exp.console.formats import plural, size
from mnist_exp.console.terminal import console
from mnist_exp.disk import provenance
from mnist_exp.errors import ExperimentError, first_line
from mnist_exp.tracking import database

ABOUT = """\
Looks at everything a run needs: versions, device, data files, the MLflow store, disk, write access. Changes nothing
and downloads nothing; passwords, tokens and the home folder's name are never shown, so the output may be pasted into
a bug report."""
EXAMPLES = """\
examples
  python -m mnist_exp.doctor
  python -m mnist_exp.doctor --json | jq '.checks[] | select(.state != "ok")'

exit codes: 0 nothing stands in the way (warnings may) · 1 there is a fault · 2 usage
"""
State = Literal["ok", "note", "warning", "fault"]
STYLES = {"ok": "green", "note": "", "warning": "yellow", "fault": "bold red"}
SCARCE, TOO_SCARCE = 2**30, 100 * 2**20  # bytes free: a long sweep needs the first, one run the second
PATIENCE = 3  # seconds for a server to answer
VARIABLES = re.compile(
    r"(MLFLOW|HYDRA|MNIST_EXP|CUDA|PYTORCH|TORCH|SLURM|RAY|OMP|MKL|OPENBLAS|PIP|XDG|AWS)_.*"
    r"|(https?|no|all)_proxy|(HTTPS?|NO|ALL)_PROXY|(NO|FORCE)_COLOR|TERM|COLUMNS|PYTHONPATH|PYTHONHASHSEED"
)
TYPED = {name: value for name, value in os.environ.items() if name not in stores.ADDED}


@final
@dataclass(frozen=True)
class Check:
    """The state of one thing that a run needs."""

    name: str
    state: State
    finding: str
    help: str = ""
    """How to mend it."""


def main(arguments: Sequence[str]) -> None:
    """Prints the state of everything that a run needs, each fault with its fix.

    Raises:
        SystemExit: there is a fault (1), usage (2), or `--help` (0).
    """
    parser = Parser("doctor", ABOUT, EXAMPLES)
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")
    typed = parser.read(arguments)
    checks = [replace(check, finding=at_home(check.finding)) for look in LOOKS for check in _looked(look)]
    faults = sum(check.state == "fault" for check in checks)
    if typed.json:
        report = {"format": 1, "ok": not faults, "checks": [asdict(check) for check in checks]}
        console.out(json.dumps(report, indent=1), highlight=False)
    else:
        _show(checks, faults)
    if faults:
        sys.exit(1)


def _show(checks: Sequence[Check], faults: int) -> None:
    """One line for each check, its help below."""
    width = max(len(check.name) for check in checks)
    for check in checks:
        state = f"[{STYLES[check.state]}]{check.state:<8}[/]" if STYLES[check.state] else f"{check.state:<8}"
        console.print(f"{state}{check.name:<{width}}  {escape(check.finding)}")
        if check.help:
            console.print(f"{'':8}{'':{width}}  help: {escape(check.help)}")
    warnings = sum(check.state == "warning" for check in checks)
    console.print(f"{plural(faults or 'no', 'fault')}, {plural(warnings or 'no', 'warning')}.")


def versions() -> Iterator[Check]:
    """This package's requirements against what is installed."""
    yield Check("python", "ok", f"{provenance.versions()['python']} in {sys.prefix}")
    try:
        version, requirements = metadata.version("mnist_exp"), _requirements()
    except metadata.PackageNotFoundError:
        yield Check("mnist_exp", "warning", "is not installed, only found", "Install it: pip install -e .")
        return
    yield Check("mnist_exp", "ok", f"{version}, code {provenance.code_fingerprint()}")
    yield from (_installed(each) for each in requirements if _needed(each))


def _requirements() -> list[Requirement]:
    return [Requirement(line) for line in metadata.requires("mnist_exp") or []]


def _needed(requirement: Requirement, extra: str = "") -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _installed(requirement: Requirement) -> Check:
    name = requirement.name
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Check(name, "fault", "is not installed", f'Install it: pip install "{requirement}"')
    if not requirement.specifier.contains(version, prereleases=True):
        wanted = f"{version}, but {requirement.specifier} is needed"
        return Check(name, "fault", wanted, f'Install a fitting one: pip install "{requirement}"')
    return Check(name, "ok", version)


def extras() -> Iterator[Check]:
    """Which of the optional parts are complete."""
    with suppress(metadata.PackageNotFoundError):  # as `versions` says
        for extra in metadata.metadata("mnist_exp").get_all("Provides-Extra") or []:
            wanted = [each for each in _requirements() if _needed(each, extra) and not _needed(each)]
            lacking = [each.name for each in wanted if _installed(each).state == "fault"]
            state = f"without {', '.join(lacking)}: pip install 'mnist_exp[{extra}]'" if lacking else "complete"
            yield Check(f"extra {extra}", "note", state)


def machine() -> Iterator[Check]:
    """The operating system, and what is not known of it."""
    name = f"{system.name()}, workers by {system.start_method()}"
    untried = "This package was tested on Linux only, and on others by simulation: please say what fails."
    yield Check("system", "ok", name) if system.TESTED else Check("system", "note", name, untried)


def device() -> Iterator[Check]:
    """The device of a run; whether torch and torchvision can be loaded."""
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Check("device", "fault", f"torch cannot be loaded: {_line(error)}", "Install torch again.")
        return
    from mnist_exp.run import build

    chosen = build.device(compose(["data=synthetic", "tracking=off"]))
    name = f" ({torch.cuda.get_device_name(chosen)})" if chosen.type == "cuda" else ""
    threads, cores = plural(torch.get_num_threads(), "thread"), plural(system.cores(), "core")
    yield Check("device", "ok", f"{chosen}{name}, {threads} on {cores}")
    if chosen.type == "cpu" and processor.lacks_bfloat16():
        yield Check("bfloat16", "note", processor.SLOW_BFLOAT16, "Train with precision=fp32.")
    try:
        importlib.import_module("torchvision")
    except Exception as error:  # another build than torch's raises whatever it likes
        mend = "Nothing else needs it; MNIST then comes from the package index. Else install torch and torchvision "
        reason = f"torchvision cannot be loaded: {_line(error)}"
        yield Check("downloads", "warning", reason, f"{mend}from the same place.")


def data() -> Iterator[Check]:
    """The image files of each dataset, read but not fetched; only the lack of MNIST is a warning."""
    from mnist_exp.data import fetch, own

    for dataset in options("data"):
        about = compose([f"data={dataset}", "tracking=off"]).data
        if about.name == "synthetic":
            continue
        if about.reader in own.READERS and not about.root:
            mend = f"Say where they are: data={dataset} data.root=…"
            yield Check(f"data {dataset}", "note", "images of your own", mend)
            continue
        folder, files = fetch.inspect(about)
        faults = {name: fault for name, fault in files.items() if fault not in ("", "missing")}
        missing = sum(fault == "missing" for fault in files.values())
        name, fix = f"data {dataset}", f"python -m mnist_exp.data fetch {dataset}"
        if faults:
            yield Check(name, "fault", "; ".join(f"{folder / n}: {f}" for n, f in faults.items()), f"Again: {fix}")
        elif missing == len(files):
            state: State = "warning" if dataset == "mnist" else "note"
            yield Check(name, state, f"not in {folder}; the first run fetches it", f"Now: {fix}")
        elif missing:
            yield Check(name, "warning", f"{missing} of {len(files)} files are not in {folder}", f"Get them: {fix}")
        else:
            yield Check(name, "ok", f"{folder}, {len(files)} files, digests right" if about.sha256 else f"{folder}")


def store() -> Iterator[Check]:
    """The MLflow store that a run would use."""
    uri, experiment = stores.uri_for(None), compose(["data=synthetic"]).tracking.experiment
    try:
        if path := stores.database(uri):
            yield _database(path, experiment)
        else:
            look = _server if uri.startswith(("http://", "https://")) else _elsewhere
            yield Check("store", "ok", look(uri, experiment))
    except ExperimentError as error:
        yield Check("store", "fault", error.message.removesuffix("."), error.help)


def _database(path: Path, experiment: str) -> Check:
    if not stores.made(path):
        return Check("store", "ok", f"{path} does not exist yet; the first run makes it")
    try:
        database.check(path, experiment)
        database.check_schema(path)
        old, new = database.moved(path, experiment)
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=1)) as connection:
            runs, schema = connection.execute(
                "SELECT (SELECT count(*) FROM runs), version_num FROM alembic_version"
            ).fetchone()
            connection.execute("BEGIN IMMEDIATE")  # what every write begins with
    except sqlite3.Error as error:
        if "locked" in str(error):
            mend = "Another program is writing to it, or hangs. Who: fuser -v " + str(path)
            return Check("store", "fault", f"{path}: {error}", mend)
        return Check("store", "warning", f"{path} has no tables", "The next run makes them.")
    if old:
        mend = "The next run does that by itself; python -m mnist_exp.sync does it now."
        return Check("store", "warning", f"{path} was in another folder: {old} is to become {new}", mend)
    return Check("store", "ok", f"{path}, {runs} runs, schema {schema}, not locked")


def _server(uri: str, experiment: str) -> str:
    """What answers there. Raises ExperimentError if nothing does, or the experiment was deleted."""
    name = without_login(uri)
    try:
        with urllib.request.urlopen(f"{name.rstrip('/')}/version", timeout=PATIENCE) as answer:
            version = answer.read(100).decode(errors="replace")
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            return f"{name} answers, and asks for a login"
        raise ExperimentError(f"{name} answers with HTTP {error.code}", "Is it an MLflow server?") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        mend = "Start it, or mend MLFLOW_TRACKING_URI. Runs train all the same; python -m mnist_exp.sync sends them."
        raise ExperimentError(f"{name} cannot be reached: {reason}", mend) from error
    page = f"{name.rstrip('/')}/api/2.0/mlflow/experiments/get-by-name?experiment_name={quote(experiment)}"
    with suppress(OSError, ValueError, KeyError), urllib.request.urlopen(page, timeout=PATIENCE) as answer:
        row = json.load(answer)["experiment"]
        if row["lifecycle_stage"] == "deleted":
            raise database.deleted(uri, experiment, row["experiment_id"])
    return f"{name}, MLflow {version}"


def _elsewhere(uri: str, experiment: str) -> str:
    """As `_server`, for another database: through mlflow in another process, because its drivers have no timeout."""
    code = "import mlflow, sys; row = mlflow.MlflowClient().get_experiment_by_name(sys.argv[1]); "
    code += "print(row.experiment_id if row and row.lifecycle_stage == 'deleted' else '')"
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", code, experiment],
            env={**os.environ, "MLFLOW_TRACKING_URI": uri},  # every user sees a process's arguments
            capture_output=True,
            text=True,
            timeout=10 * PATIENCE,
            check=False,
        )
        fault = "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    except subprocess.TimeoutExpired:
        fault = f"no answer within {10 * PATIENCE} s"
    if fault:
        raise ExperimentError(f"{without_login(uri)}: {hide(fault)}", "Mend MLFLOW_TRACKING_URI.")
    if id := done.stdout.strip():
        raise database.deleted(uri, experiment, id)
    return without_login(uri)


def disk() -> Iterator[Check]:
    """Space and write access where runs and the store's file are written."""
    folders = {"outputs": Path("outputs")}
    if path := stores.database(stores.uri_for(None)):
        folders["store's folder"] = path.parent
    for name, wanted in folders.items():
        folder = next(f for f in (wanted.absolute(), *wanted.absolute().parents) if f.is_dir())
        free = shutil.disk_usage(folder).free
        state: State = "ok" if free >= SCARCE else "warning" if free >= TOO_SCARCE else "fault"
        mend = "Delete old checkpoints (outputs/**/checkpoints), or train with checkpoint=off."
        try:
            with tempfile.TemporaryFile(dir=folder):
                yield Check(name, state, f"{folder}, {size(free)} free", mend if state != "ok" else "")
        except OSError as error:
            mend = "Work in another folder, or mend its rights: chmod u+w " + str(folder)
            yield Check(name, "fault", f"{folder} cannot be written: {error.strerror}", mend)


def environment(variables: Mapping[str, str] = TYPED) -> Iterator[Check]:
    """Variables that change what runs do, secrets masked."""
    for name in sorted(filter(VARIABLES.fullmatch, variables)):
        yield Check(f"${name}", "note", masked(name, variables[name]))


def at_home(text: str) -> str:
    """*text* with `~` for the user's home folder: shorter, and without a name."""
    home = str(Path.home())
    return re.sub(rf"{re.escape(home)}(?=/|\b)", "~", text) if len(home) > 1 else text


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {first_line(error)}"


def _looked(look: Callable[[], Iterator[Check]]) -> list[Check]:
    """What *look* has seen, or its own exception as a fault, so that the others still look."""
    try:
        return list(look())
    except Exception as error:
        help = error.help if isinstance(error, ExperimentError) else ""
        return [Check(look.__name__, "fault", _line(error), help)]


LOOKS = (versions, machine, device, data, store, disk, extras, environment)

cli = exits.command(main)

if __name__ == "__main__":
    cli()
