"""`python -m benchmarks.soak --minutes 60`: sweeps under random kills, then an audit of their results.

It starts one sweep after another as a user would: grids of single runs, grids of packs, and searches with pruning.
Half of them log to a database of their own, half to an MLflow server. Meanwhile it kills, interrupts or freezes the
driver, workers, fork server, publisher and tracking server, and resumes whatever stopped. Drivers write to screens that
are closed or full, in changing time zones, and what is stopped is moved, or loses the end of its search's journal. What
has never occurred comes first, then chance decides. The exit code is 1 if the results show any trace of this.

The code may not change meanwhile, or what is resumed is refused: run it from a copy of the project.
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import psutil
import safetensors.torch
import torch
from filelock import FileLock, Timeout
from rich.console import Console

from mnist_exp import config, rerun
from mnist_exp.disk import journal, lanes, ledger, plan
from mnist_exp.disk.layout import SweepFolder
from mnist_exp.disk.ledger import Ledger
from mnist_exp.errors import ExperimentError
from mnist_exp.run import session as run
from mnist_exp.search import study as studies
from mnist_exp.tracking.runs import STATUS

console = Console(soft_wrap=True, highlight=False)

WIDTHS, RATES, SEEDS = (16, 24, 32), ("3e-6", "3e-5"), (0, 1)  # slow to learn: pruning has something to choose from
EPOCHS = 24
TRIALS = 6
SMALL = ["data=synthetic", "data.train_images=60000", "data.val_size=2000", f"epochs={EPOCHS}", "threads=1"]
ALONE = "hydra.launcher.pack=off"
HELD_UP = 240  # seconds in which a sweep that runs writes nothing, and counts as hung
ZONES = ("UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago", "Europe/Berlin")
DISTURBANCES = (
    *("driver SIGKILL", "driver SIGINT", "driver SIGTERM", "worker SIGKILL", "server frozen", "publisher SIGKILL"),
    *("fork server SIGKILL", "server SIGKILL", "worker SIGTERM", "fork server SIGTERM", "publisher SIGTERM"),
)
"""What befalls a process, and how; drivers first, because only what is stopped can be resumed."""
SCREENS, MISHAPS = ("screen closed", "screen full"), ("torn journal", "moved project")
KINDS = ("search", "packed", "alone")
MARK = "MNIST_EXP_SOAK"  # an environment variable that every process of the soak inherits


@final
@dataclass
class Sweep:
    """One sweep, and the observations during its disturbance."""

    folder: Path
    """Its working directory, with `outputs/`; its name begins with the experiment's."""
    served: bool
    """Whether it logs to the server, or to a database beside `outputs/`."""
    kind: str
    """`alone` or `packed` for a grid, or `search`."""
    typed: list[str]
    starts: int = 0
    code: int | None = None
    """Exit code of its last start."""
    ended: dict[int, tuple[int | None, int]] = field(default_factory=dict)
    """By point: end time and process of the first finished or pruned state that was seen."""

    @property
    def experiment(self) -> str:
        return self.folder.name.partition("-")[0]

    @property
    def home(self) -> Path | None:
        """The sweep's folder; None if it was killed before it had a plan to resume."""
        return max((path.parent for path in self.folder.glob("outputs/sweeps/*/*/sweep.json")), default=None)

    def written(self) -> float:
        """When it wrote last, in seconds since 1970."""
        last = 0.0
        for path in self.folder.rglob("*"):
            with suppress(OSError):  # deleted meanwhile
                last = max(last, path.lstat().st_mtime)
        return last

    def trials(self) -> list[Any]:
        """The trials of its study; none for a grid."""
        if self.home is None or not (self.home / "study.json").is_file():
            return []
        studies.storage.cache_clear()  # it would return the trials of an earlier read
        return studies.read_only(self.home, studies.read(self.home)).get_trials()

    @property
    def done(self) -> bool:
        """Whether nothing is left to resume. A search replaces a trial killed twice, but its exit code is then 1."""
        if self.kind == "search" and self.code == 1:
            return sum(trial.state.name in ("COMPLETE", "PRUNED") for trial in self.trials()) >= TRIALS
        return self.code == 0


@final
class Server:
    """`mlflow server` on loopback, which can be restarted on the same port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir()

    def start(self) -> None:
        """Starts it unless it runs; does not wait for it."""
        if self.process and self.process.poll() is None:
            return
        command = [sys.executable, "-m", "mlflow", "server", "--host=127.0.0.1", f"--port={self.port}", "--workers=1"]
        command += [f"--backend-store-uri=sqlite:///{self.folder / 'server.db'}"]
        command += [f"--artifacts-destination={self.folder / 'artifacts'}"]
        env = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # saves a dozen unused processes
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, env=env, process_group=0)

    def wait(self) -> None:
        """Returns when it answers."""
        self.start()
        end = time.monotonic() + 180
        while True:
            with suppress(OSError), urllib.request.urlopen(f"{self.uri}/health", timeout=5):
                return
            if time.monotonic() > end:
                raise RuntimeError(f"the server does not come up: see {self.folder / 'server.log'}")
            time.sleep(0.5)

    def family(self) -> list[psutil.Process]:
        """Its processes."""
        with suppress(psutil.Error):
            if self.process and self.process.poll() is None:
                parent = psutil.Process(self.process.pid)
                return [parent, *parent.children(recursive=True)]
        return []

    def kill(self) -> None:
        for process in self.family():
            with suppress(psutil.Error):
                process.kill()
        if self.process:
            self.process.wait()

    def freeze(self, seconds: float) -> None:
        """Suspends it: it accepts connections and does not answer."""
        stopped = self.family()
        for process in stopped:
            with suppress(psutil.Error):
                process.suspend()
        time.sleep(seconds)
        for process in stopped:
            with suppress(psutil.Error):
                process.resume()


@final
class Soak:
    """All sweeps and their audit, in *folder*."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.random = folder, random.Random(seed)
        self.kills: Counter[str] = Counter()
        self.sweeps: list[Sweep] = []
        self.hung: list[str] = []
        self.packs: dict[str, list[Path]] = {}
        """Undisturbed packs for comparison: folders by lane."""
        self.server = Server(folder / "server")

    def command(
        self, where: Path, *arguments: str, uri: str | None = None, screen: str = "", **more: str
    ) -> "subprocess.Popen[bytes]":
        """Starts a command in *where*; its output is appended to output.txt there.

        Args:
            screen: Where its output goes instead: a pipe that nobody reads (`closed`), or a device that is `full`.
            more: Variables of its environment.
        """
        env = {**os.environ, MARK: str(self.folder), "PYTHONPATH": str(Path(__file__).parents[1]), **more}
        env.pop("MLFLOW_TRACKING_URI", None)
        if uri:
            env["MLFLOW_TRACKING_URI"] = uri
        where.mkdir(parents=True, exist_ok=True)
        with (where / "output.txt").open("ab") as output:
            output.write(f"$ {' '.join(arguments)}\n".encode())
            output.flush()
            typed = [sys.executable, "-m", *arguments]
            with _screen(screen) if screen else nullcontext(output) as shown:
                return subprocess.Popen(typed, cwd=where, env=env, stdout=shown, stderr=shown)

    def undisturbed(self) -> None:
        """Trains every point once, alone and without kills, as the reference."""
        grid = [f"hidden={_list(WIDTHS)}", f"lr={_list(RATES)}", f"seed={_list(SEEDS)}"]
        calm = self.command(self.folder / "calm", "mnist_exp.train", "-m", *grid, *SMALL, ALONE, "tracking=off")
        if calm.wait():
            raise RuntimeError(f"the undisturbed sweep failed: see {self.folder / 'calm' / 'output.txt'}")
        (home,) = (path.parent for path in (self.folder / "calm").glob("outputs/sweeps/*/*/sweep.json"))
        self.calm = {_point(ledger.read(f.parent)): f.parent for f in home.glob("*/ledger.json")}

    def one(self) -> None:
        """Runs one sweep, disturbs it a few times and resumes it until it is done."""
        number = len(self.sweeps)
        served = not number or self.random.random() < 0.5
        kind = KINDS[number] if number < len(KINDS) else self.random.choice(KINDS)
        sweep = Sweep(self.folder / "sweeps" / f"s{number:04d}", served, kind, self.wish(kind))
        self.sweeps.append(sweep)
        left = self.random.randint(2, 6)  # bounded, so that the sweep ends
        while True:
            if sweep.starts:
                self.befall(sweep)
            driver = self.start(sweep)
            while left and driver.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    driver.wait(self.random.uniform(0.5, 5.0))
                if driver.poll() is None:
                    self.disturb(driver, sweep)
                    left -= 1
            self.server.start()
            begun = time.time()
            while driver.poll() is None and time.time() - max(begun, sweep.written()) < HELD_UP:
                with suppress(subprocess.TimeoutExpired):
                    driver.wait(1)
            if driver.poll() is None:
                self.hung.append(f"{sweep.folder}: still running, and for {HELD_UP} s it has written nothing")
                driver.kill()
            sweep.code = driver.wait()
            self.note(sweep)
            if sweep.done:
                return
            if sweep.starts > 30:
                self.hung.append(f"{sweep.folder}: not done after {sweep.starts} starts")
                return

    def draw(self, *possible: str) -> str:
        """One of *possible*: the first that has never occurred, else a random one; empty is nothing."""
        never = [each for each in possible if each and not self.kills[each]]
        return never[0] if never else self.random.choice(possible)

    def wish(self, kind: str) -> list[str]:
        """Random overrides for a sweep of *kind*."""
        draw = self.random
        widths: tuple[int, ...] = WIDTHS
        if kind == "alone":
            widths, more = tuple(draw.sample(WIDTHS, 2)), [ALONE]
        elif kind == "packed":
            more = [
                f"hydra.launcher.pack={draw.choice(['auto', 2, 4])}",
                f"hydra.launcher.workers={draw.choice([1, 2])}",
            ]
        else:
            more = draw.choice([["search=tpe", "hydra.sweeper.sampler.n_startup_trials=2"], ["search=asha"]])
            more = [*more, f"n_trials={TRIALS}", f"hydra.sweeper.seed={draw.randrange(1000)}"]
        return [f"hidden={_list(widths)}", f"lr={_list(RATES)}", f"seed={draw.choice(SEEDS)}", *more]

    def start(self, sweep: Sweep) -> "subprocess.Popen[bytes]":
        """Starts *sweep*, or resumes it."""
        sweep.starts += 1
        what = ["resume=last"] if sweep.home else [*sweep.typed, *SMALL, f"tracking.experiment={sweep.experiment}"]
        uri = self.server.uri if sweep.served else None
        screen, zone = self.draw("", "", *SCREENS), self.random.choice(ZONES)
        if screen:
            self.kills[screen] += 1
        typed = ("mnist_exp.train", "-m", *what, "tracking.patience=10")
        return self.command(sweep.folder, *typed, uri=uri, screen=screen.removeprefix("screen "), TZ=zone)

    def befall(self, sweep: Sweep) -> None:
        """Moves the project of *sweep*, which is stopped, or tears the end off its search's journal, or neither."""
        torn, moved = MISHAPS
        study = sweep.home / SweepFolder.trials if sweep.home else None
        what = self.draw(*([torn] if study and study.is_file() else []), moved, "")
        if not what:
            return
        end = time.monotonic() + 90
        while self.inside(sweep.folder) and time.monotonic() < end:  # an orphaned publisher may take a minute
            time.sleep(0.5)
        if what == moved:
            sweep.folder = sweep.folder.rename(sweep.folder.with_name(f"{sweep.experiment}-{sweep.starts}"))
        else:
            assert study
            last = study.read_bytes().splitlines(keepends=True)[-1:]
            os.truncate(study, study.stat().st_size - (self.random.randint(1, len(last[0])) if last else 0))
        self.kills[what] += 1

    def inside(self, folder: Path) -> list[psutil.Process]:
        """Processes of the soak that work in *folder*."""
        found = []
        for process in self.strays():
            with suppress(psutil.Error):
                if Path(process.cwd()).is_relative_to(folder):
                    found.append(process)
        return found

    def disturb(self, driver: "subprocess.Popen[bytes]", sweep: Sweep) -> None:
        """Kills, interrupts or freezes a random process."""
        with suppress(psutil.Error):
            family = defaultdict(list)
            for process in [psutil.Process(driver.pid), *psutil.Process(driver.pid).children(recursive=True)]:
                family[_role(process, driver.pid)].append(process)
            split = [each.rpartition(" ") for each in DISTURBANCES]
            what = self.draw(*(f"{role} {how}" for role, _, how in split if role == "server" or family[role]))
            if not self.kills[MISHAPS[0]] and sweep.home and (sweep.home / SweepFolder.trials).is_file():
                what = "driver SIGKILL"  # so that there is a journal to tear
            role, _, how = what.rpartition(" ")
            if what == "server frozen":
                self.server.freeze(self.random.uniform(2, 15))
            elif role == "server":
                self.server.kill()
            else:
                self.random.choice(family[role]).send_signal(signal.Signals[how])
            self.kills[what] += 1

    def note(self, sweep: Sweep) -> None:
        """Records the end of each run of *sweep* that finished or was pruned."""
        for path in sweep.home.glob("*/ledger.json") if sweep.home else ():
            entry = ledger.read(path.parent)
            if entry.state in ("finished", "pruned"):
                sweep.ended.setdefault(int(path.parent.name), (entry.ended_ms, entry.pid))

    def deliver(self) -> list[str]:
        """Sends what an outage left unsent, with the command of its warning; returns faults."""
        self.server.wait()
        faults = []
        for sweep in self.sweeps:
            uri = self.server.uri if sweep.served else None
            for _ in range(3):
                if self.command(sweep.folder, "mnist_exp.sync", uri=uri).wait() == 0:
                    break
            else:
                faults.append(f"{sweep.folder}: sync failed three times")
        return faults

    def audit(self) -> list[str]:
        """All faults: every trace of a kill."""
        import mlflow

        faults = [*self.hung]
        end = time.monotonic() + 90  # an orphaned publisher may take a minute to give up
        while (strays := self.strays()) and time.monotonic() < end:
            time.sleep(1)
        faults += [f"process {p.pid} is still there: {' '.join(p.cmdline())}" for p in strays]
        for sweep in self.sweeps:
            uri = self.server.uri if sweep.served else f"sqlite:///{sweep.folder / 'mlflow.db'}"
            faults += [f"{sweep.experiment}: {fault}" for fault in self.check(sweep, mlflow.MlflowClient(uri))]
        return faults

    def strays(self) -> list[psutil.Process]:
        """Processes of the soak that should have ended, without the server."""
        strays = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(MARK) == str(self.folder) and process.status() != psutil.STATUS_ZOMBIE:
                    strays.append(process)
        return strays

    def check(self, sweep: Sweep, client: Any) -> list[str]:
        """The faults of one sweep."""
        if sweep.home is None:
            return ["it was never planned"]
        faults = self.check_search(sweep) if sweep.kind == "search" else []
        experiment = client.get_experiment_by_name(sweep.experiment)
        runs = client.search_runs([experiment.experiment_id], max_results=1000) if experiment else []
        tracked = {run.data.tags["run.id"]: run for run in runs}
        folders = [sweep.home / str(number) for number in range(len(plan.read(sweep.home).points))]
        if sweep.kind == "search":  # a driver killed between ask and start leaves a trial without a run
            folders = [folder for folder in folders if (folder / "ledger.json").exists()]
        if len(runs) != len(folders) or len(tracked) != len(folders):
            faults.append(f"{len(folders)} runs, but {len(runs)} in MLflow, {len(tracked)} different ones")
        for folder in folders:
            try:
                faults += [f"#{folder.name}: {fault}" for fault in self.check_run(sweep, folder, tracked, client)]
            except ExperimentError as error:
                faults.append(f"#{folder.name}: {error}")
        return faults + self.check_files(sweep)

    def check_files(self, sweep: Sweep) -> list[str]:
        """Temporary files and locks that were left behind."""
        faults = []
        for path in sweep.folder.rglob("*"):
            if ".tmp" in path.name or path.name.endswith("-journal"):
                faults.append(f"a temporary file is left: {path}")
            if ".lock" in path.name and path.is_symlink():  # Optuna's: it exists only while it is held
                faults.append(f"a lock is left: {path}")
            elif path.name.endswith("lock"):
                try:
                    FileLock(path, timeout=0).acquire().lock.release()
                except Timeout:
                    faults.append(f"somebody holds {path}")
        return faults

    def check_search(self, sweep: Sweep) -> list[str]:
        """Differences between the trials of a study and their runs."""
        assert sweep.home
        planned, trials, faults = plan.read(sweep.home), sweep.trials(), []
        points = planned.points
        counts = Counter(trial.state.name for trial in trials)
        if len(trials) != len(points) or counts["COMPLETE"] + counts["PRUNED"] != TRIALS:
            faults.append(f"{len(points)} points and {TRIALS} trials wanted, but the study has {dict(counts)}")
        lost = 0
        for trial in trials:
            entry = ledger.find(sweep.home / str(trial.number))
            lost += trial.state.name == "FAIL"
            state = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "killed"}.get(trial.state.name, "")
            if trial.number in planned.repeats:
                same = [each for each in trials[: trial.number] if each.params == trial.params]
                if entry or (trial.state, trial.value) not in [(each.state, each.value) for each in same]:
                    faults.append(f"#{trial.number}: it repeats an earlier trial, and has a run or another result")
                continue
            if entry is None and not (state == "killed" and not points[trial.number]):
                faults.append(f"#{trial.number}: the study says {trial.state.name}, but there is no run")
            if entry is None:
                continue
            if entry.state != state:
                faults.append(f"#{trial.number}: the study says {trial.state.name}, its ledger {entry.state}")
            rows = {r["epoch"]: r["metrics"]["val/accuracy"] for r in journal.read(sweep.home / str(trial.number))}
            if state != "killed" and trial.intermediate_values != rows:
                faults.append(f"#{trial.number}: the study has {trial.intermediate_values}, its journal has {rows}")
            if state == "finished" and trial.value != entry.objective:
                faults.append(f"#{trial.number}: the study says {trial.value}, its ledger {entry.objective}")
        if sweep.code != int(bool(lost)):
            faults.append(f"{lost} trials failed, and the exit code was {sweep.code}")
        return faults

    def check_run(self, sweep: Sweep, folder: Path, tracked: dict[str, Any], client: Any) -> list[str]:
        """The faults of one run."""
        entry, faults, rows = ledger.read(folder), [], journal.read(folder)
        states = ("finished", "pruned", "killed") if sweep.kind == "search" else ("finished",)
        if entry.state not in states:
            return [f"its ledger says {entry.state}: {entry.reason}"]
        if sweep.ended.get(int(folder.name), (entry.ended_ms, entry.pid)) != (entry.ended_ms, entry.pid):
            faults.append("it had ended before, and was run again")
        epochs = EPOCHS if entry.state == "finished" else entry.epoch
        if [row["epoch"] for row in rows] != list(range(1, epochs + 1)):
            faults.append(f"it ended after {epochs} epochs, but its journal has {[row['epoch'] for row in rows]}")
        if entry.state == "pruned" and entry.reason != f"Pruned after epoch {epochs} of {EPOCHS}.":
            faults.append(f"after {epochs} epochs it says {entry.reason}")
        calm = self.reference(folder, entry)
        if verdict := rerun.compare(rows, journal.read(calm), whole=entry.state == "finished"):
            faults.append(f"its metrics differ from those of the undisturbed run: {verdict}")
        if (folder / "weights.safetensors").exists() != (entry.state == "finished"):
            faults.append(f"it is {entry.state}, and has weights or has none")
        elif entry.state == "finished" and not _same_weights(folder, calm):
            faults.append("its weights differ from those of the undisturbed run")
        if (known := tracked.get(entry.id)) is None:
            return [*faults, "MLflow does not know it"]
        reported = known.info.status, known.data.tags.get("state"), known.data.tags.get("reason")
        if reported != (STATUS[entry.state], entry.state, entry.reason):
            faults.append(f"MLflow says {reported}, its ledger {entry.state}: {entry.reason}")
        for key in ("train/loss", "val/accuracy", "test/accuracy"):
            steps = Counter(metric.step for metric in client.get_metric_history(known.info.run_id, key))
            if steps != dict.fromkeys(range(1, epochs + 1), 1):
                faults.append(f"MLflow has {key} at the steps {dict(steps)}")
        return faults

    def reference(self, folder: Path, entry: Ledger) -> Path:
        """The undisturbed run that the one in *folder* must equal: a single run, or the same lane of an equal pack.

        Where pruned lanes have left it, placeholders leave when they did.

        Raises:
            ExperimentError: the pack cannot be trained.
        """
        record = lanes.read(folder)
        if record is None:
            return self.calm[_point(entry)]
        settings = config.load(folder / "config.yaml")
        if record.left:
            home = self.folder / "calm" / "left" / folder.parent.name / folder.name
            home.mkdir(parents=True)
            lanes.copy(folder, home)
            (outcome,) = run.run_many([run.Task(settings, home)])
            if isinstance(outcome, Exception):
                raise outcome
            return home
        key = json.dumps([record.lanes, settings.seed], default=str)
        if key not in self.packs:
            home = self.folder / "calm" / "packs" / str(len(self.packs))
            self.packs[key] = [home / str(lane) for lane in range(len(record.lanes))]
            pack = [record.placeholder(lane, settings) for lane in range(len(record.lanes))]
            for outcome in run.run_many([run.Task(c, f) for c, f in zip(pack, self.packs[key], strict=True)]):
                if isinstance(outcome, Exception):
                    raise outcome
        return self.packs[key][record.lane]


@contextmanager
def _screen(kind: str) -> Iterator[int]:
    """A descriptor of such a screen; see `Soak.command`."""
    if kind == "full":
        descriptor = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, descriptor = os.pipe()
        os.close(reader)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _role(process: psutil.Process, driver: int) -> str:
    """The role of *process* in a sweep."""
    if process.pid == driver:
        return "driver"
    line = " ".join(process.cmdline())
    if "tracking.sender" in line:
        return "publisher"
    if "forkserver" in line:
        return "fork server" if process.ppid() == driver else "worker"
    return "other"


def _same_weights(*folders: Path) -> bool:
    """Whether the weights in these two folders are equal to the last bit."""
    one, other = (safetensors.torch.load_file(folder / "weights.safetensors") for folder in folders)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def _list(values: Any) -> str:
    return ",".join(map(str, values))


def _point(entry: Ledger) -> tuple[str, ...]:
    return tuple(str(entry.params[key]) for key in ("hidden", "lr", "seed"))


def main() -> int:
    """Runs the soak and prints its figures; returns 1 if the audit has faults."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=60.0, help="how long sweeps are started (60)")
    parser.add_argument("--seed", type=int, default=0, help="of what is killed, and when (0)")
    parser.add_argument("--folder", type=Path, help="where, and kept; none: a temporary one, kept only after faults")
    options = parser.parse_args()
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # with a shell's & it is ignored, and children inherit that
    folder = (options.folder or Path(tempfile.mkdtemp(prefix="mnist_exp-soak-"))).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    soak, began = Soak(folder, options.seed), time.monotonic()
    soak.undisturbed()
    soak.server.wait()
    end = time.monotonic() + 60 * options.minutes
    while time.monotonic() < end:
        soak.one()
        console.print(
            f"{(time.monotonic() - began) / 60:5.1f} min  {len(soak.sweeps)} sweeps, {soak.kills.total()} kills"
        )
    faults = [*soak.deliver(), *soak.audit()]
    soak.server.kill()
    runs = [path for sweep in soak.sweeps if sweep.home for path in sweep.home.glob("*/ledger.json")]
    logs = [path.parent / "train.log" for path in runs]
    figures = {
        "minutes": round((time.monotonic() - began) / 60, 1),
        "seed": options.seed,
        "sweeps": len(soak.sweeps),
        **Counter(sweep.kind for sweep in soak.sweeps),
        "served": sum(sweep.served for sweep in soak.sweeps),
        "starts": sum(sweep.starts for sweep in soak.sweeps),
        "runs": len(runs),
        **Counter(str(ledger.read(path.parent).state) for path in runs),
        "trainings": sum(len(re.findall(r"Training \d+ on", log.read_text())) for log in logs if log.exists()),
        "kills": dict(sorted(soak.kills.items())),
        "never": [each for each in (*DISTURBANCES, *SCREENS, *MISHAPS) if not soak.kills[each]],
        "faults": faults,
    }
    console.print_json(json.dumps(figures))
    if not options.folder and not faults:
        shutil.rmtree(folder)
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
