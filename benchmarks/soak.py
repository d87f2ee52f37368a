"""`python -m benchmarks.soak --minutes 60`: sweeps while anything is killed at random, then an audit of what is left.

Sweep after sweep is started as a user would start it, half of them tracked in a database of their own and half by an
MLflow server. Meanwhile driver, workers, fork server, courier and tracking server are killed, interrupted or frozen,
and whatever stopped is resumed. At the end nothing may show that this happened: the exit code is 1 if anything does.
"""

import argparse
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import psutil
import safetensors.torch
import torch
from filelock import FileLock, Timeout
from rich.console import Console

from mnist_exp import journal, ledger, plan
from mnist_exp.errors import ExperimentError

console = Console(soft_wrap=True, highlight=False)

WIDTHS, RATES, SEEDS = (16, 24, 32), ("1e-3", "3e-3"), (0, 1)
EPOCHS = 8
SMALL = ["data=synthetic", "data.train_images=20000", f"epochs={EPOCHS}", "threads=1", "hydra.launcher.pack=off"]
HELD_UP = 240  # seconds without an end after the last kill, at which a sweep counts as hung
MARK = "MNIST_EXP_SOAK"  # an environment variable that every process of the soak inherits


@final
@dataclass
class Sweep:
    """One sweep, and what was seen of it while it was disturbed."""

    folder: Path
    """Its working directory, with `outputs/`."""
    served: bool
    """Whether the server tracks it, or a database beside `outputs/`."""
    grid: list[str]
    starts: int = 0
    ended: dict[int, tuple[int | None, int]] = field(default_factory=dict)
    """Of each point, when and by which process it was first seen to be finished."""

    @property
    def experiment(self) -> str:
        return self.folder.name

    @property
    def home(self) -> Path | None:
        """The folder of the sweep that was planned; of one that was killed earlier nothing can be resumed."""
        return max((path.parent for path in self.folder.glob("outputs/sweeps/*/*/sweep.json")), default=None)


@final
class Server:
    """`mlflow server` on loopback; it comes back whenever it is called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir()

    def start(self) -> None:
        """Starts it unless it runs; does not wait."""
        if self.process and self.process.poll() is None:
            return
        command = [sys.executable, "-m", "mlflow", "server", "--host=127.0.0.1", f"--port={self.port}", "--workers=1"]
        command += [f"--backend-store-uri=sqlite:///{self.folder / 'server.db'}"]
        command += [f"--artifacts-destination={self.folder / 'artifacts'}"]
        env = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # a dozen processes that nothing here uses
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
        """It takes connections and answers nothing."""
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
    """The whole of it, in *folder*."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.random = folder, random.Random(seed)
        self.kills: Counter[str] = Counter()
        self.sweeps: list[Sweep] = []
        self.hung: list[str] = []
        self.server = Server(folder / "server")

    def command(self, where: Path, *arguments: str, uri: str | None = None) -> "subprocess.Popen[bytes]":
        """A command of ours in *where*, beside which a log of all it says is kept."""
        env = {**os.environ, MARK: str(self.folder), "PYTHONPATH": str(Path(__file__).parents[1])}
        env.pop("MLFLOW_TRACKING_URI", None)
        if uri:
            env["MLFLOW_TRACKING_URI"] = uri
        where.mkdir(parents=True, exist_ok=True)
        with (where / "output.txt").open("ab") as output:
            output.write(f"$ {' '.join(arguments)}\n".encode())
            output.flush()
            typed = [sys.executable, "-m", *arguments]
            return subprocess.Popen(typed, cwd=where, env=env, stdout=output, stderr=output)

    def undisturbed(self) -> None:
        """Every point that sweeps are made of, once in peace: what the others are compared with."""
        grid = [f"hidden={_list(WIDTHS)}", f"lr={_list(RATES)}", f"seed={_list(SEEDS)}"]
        calm = self.command(self.folder / "calm", "mnist_exp.train", "-m", *grid, *SMALL, "tracking=off")
        if calm.wait():
            raise RuntimeError(f"the undisturbed sweep failed: see {self.folder / 'calm' / 'output.txt'}")
        (home,) = (path.parent for path in (self.folder / "calm").glob("outputs/sweeps/*/*/sweep.json"))
        self.weights = {_point(ledger.read(f.parent)): f.parent for f in home.glob("*/ledger.json")}

    def one(self) -> None:
        """A sweep, disturbed a few times and resumed until it is done."""
        number, served = len(self.sweeps), self.random.random() < 0.5
        widths, seed = self.random.sample(WIDTHS, 2), self.random.choice(SEEDS)
        grid = [f"hidden={_list(widths)}", f"lr={_list(RATES)}", f"seed={seed}"]
        sweep = Sweep(self.folder / "sweeps" / f"s{number:04d}", served, grid)
        self.sweeps.append(sweep)
        left = self.random.randint(3, 7)  # so that it comes to an end
        while True:
            driver = self.start(sweep)
            while left and driver.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    driver.wait(self.random.uniform(0.5, 10.0))
                if driver.poll() is None:
                    self.disturb(driver)
                    left -= 1
            self.server.start()
            try:
                code = driver.wait(HELD_UP)
            except subprocess.TimeoutExpired:
                self.hung.append(f"{sweep.folder}: still running {HELD_UP} s after the last kill")
                driver.kill()
                code = driver.wait()
            self.note(sweep)
            if code == 0:
                return
            if sweep.starts > 30:
                self.hung.append(f"{sweep.folder}: not done after {sweep.starts} starts")
                return

    def start(self, sweep: Sweep) -> "subprocess.Popen[bytes]":
        """The command of *sweep*, or what goes on with it."""
        sweep.starts += 1
        what = ["resume=last"] if sweep.home else [*sweep.grid, *SMALL, f"tracking.experiment={sweep.experiment}"]
        uri = self.server.uri if sweep.served else None
        return self.command(sweep.folder, "mnist_exp.train", "-m", *what, "tracking.patience=10", uri=uri)

    def disturb(self, driver: "subprocess.Popen[bytes]") -> None:
        """Kills, interrupts or freezes something."""
        what = self.random.choice(["driver", "worker", "worker", "fork server", "courier", "server", "server frozen"])
        if what == "server":
            self.server.kill()
            self.kills["server SIGKILL"] += 1
            return
        if what == "server frozen":
            self.server.freeze(self.random.uniform(2, 15))
            self.kills["server frozen"] += 1
            return
        with suppress(psutil.Error):
            family = defaultdict(list)
            for process in [psutil.Process(driver.pid), *psutil.Process(driver.pid).children(recursive=True)]:
                family[_role(process, driver.pid)].append(process)
            if not family[what]:
                return
            signals = [signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]
            number = self.random.choice([*signals, signal.SIGINT] if what == "driver" else signals)
            self.random.choice(family[what]).send_signal(number)
            self.kills[f"{what} {number.name}"] += 1

    def note(self, sweep: Sweep) -> None:
        """Remembers when each finished run of *sweep* had finished."""
        for path in sweep.home.glob("*/ledger.json") if sweep.home else ():
            entry = ledger.read(path.parent)
            if entry.state == "finished":
                sweep.ended.setdefault(int(path.parent.name), (entry.ended_ms, entry.pid))

    def deliver(self) -> list[str]:
        """What an outage has kept on disk is sent, as its user is told to; returns what went wrong."""
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
        """Everything that shows that something was killed."""
        import mlflow

        faults = [*self.hung]
        end = time.monotonic() + 90  # an orphaned courier may take a minute to give up
        while (strays := self.strays()) and time.monotonic() < end:
            time.sleep(1)
        faults += [f"process {p.pid} is still there: {' '.join(p.cmdline())}" for p in strays]
        for sweep in self.sweeps:
            uri = self.server.uri if sweep.served else f"sqlite:///{sweep.folder / 'mlflow.db'}"
            faults += [f"{sweep.experiment}: {fault}" for fault in self.check(sweep, mlflow.MlflowClient(uri))]
        return faults

    def strays(self) -> list[psutil.Process]:
        """Processes of the soak that should have ended, the server not among them."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(MARK) == str(self.folder) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def check(self, sweep: Sweep, client: Any) -> list[str]:
        """What is wrong with one sweep."""
        if sweep.home is None:
            return ["it was never planned"]
        faults = []
        experiment = client.get_experiment_by_name(sweep.experiment)
        runs = client.search_runs([experiment.experiment_id], max_results=1000) if experiment else []
        tracked = {run.data.tags["run.id"]: run for run in runs}
        points = plan.read(sweep.home).points
        if len(runs) != len(points) or len(tracked) != len(points):
            faults.append(f"{len(points)} points, but {len(runs)} runs in MLflow, {len(tracked)} different ones")
        for number in range(len(points)):
            try:
                faults += [f"#{number}: {f}" for f in self.check_run(sweep, sweep.home / str(number), tracked, client)]
            except ExperimentError as error:
                faults.append(f"#{number}: {error}")
        for path in sweep.folder.rglob("*"):
            if ".tmp" in path.name or path.name.endswith("-journal"):
                faults.append(f"a temporary file is left: {path}")
            if path.name.endswith("lock"):
                try:
                    FileLock(path, timeout=0).acquire().lock.release()
                except Timeout:
                    faults.append(f"somebody holds {path}")
        return faults

    def check_run(self, sweep: Sweep, folder: Path, tracked: dict[str, Any], client: Any) -> list[str]:
        """What is wrong with one run."""
        entry, faults = ledger.read(folder), []
        if entry.state != "finished":
            return [f"its ledger says {entry.state}: {entry.reason}"]
        if sweep.ended.get(int(folder.name), (entry.ended_ms, entry.pid)) != (entry.ended_ms, entry.pid):
            faults.append("it had finished before, and was run again")
        if [row["epoch"] for row in journal.read(folder)] != list(range(1, EPOCHS + 1)):
            faults.append(f"its journal has the epochs {[row['epoch'] for row in journal.read(folder)]}")
        places = (folder, self.weights[_point(entry)])
        one, other = (safetensors.torch.load_file(place / "weights.safetensors") for place in places)
        if one.keys() != other.keys() or not all(torch.equal(one[name], other[name]) for name in one):
            faults.append("its weights differ from those of the undisturbed run")
        if (run := tracked.get(entry.id)) is None:
            return [*faults, "MLflow does not know it"]
        if run.info.status != "FINISHED":
            faults.append(f"MLflow says {run.info.status}")
        for key in ("train/loss", "val/accuracy", "test/accuracy"):
            steps = Counter(metric.step for metric in client.get_metric_history(run.info.run_id, key))
            if steps != dict.fromkeys(range(1, EPOCHS + 1), 1):
                faults.append(f"MLflow has {key} at the steps {dict(steps)}")
        return faults


def _role(process: psutil.Process, driver: int) -> str:
    """What *process* is to a sweep."""
    if process.pid == driver:
        return "driver"
    line = " ".join(process.cmdline())
    if "tracking.courier" in line:
        return "courier"
    if "forkserver" in line:
        return "fork server" if process.ppid() == driver else "worker"
    return "other"


def _list(values: Any) -> str:
    return ",".join(map(str, values))


def _point(entry: ledger.Ledger) -> tuple[str, ...]:
    return tuple(str(entry.params[key]) for key in ("hidden", "lr", "seed"))


def main() -> int:
    """Runs the soak, prints its figures; returns 1 if the audit found anything."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=60.0, help="how long sweeps are started (60)")
    parser.add_argument("--seed", type=int, default=0, help="of what is killed, and when (0)")
    parser.add_argument("--folder", type=Path, help="where, and kept; none: a temporary one, kept only after faults")
    options = parser.parse_args()
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
    figures = {
        "minutes": round((time.monotonic() - began) / 60, 1),
        "seed": options.seed,
        "sweeps": len(soak.sweeps),
        "served": sum(sweep.served for sweep in soak.sweeps),
        "starts": sum(sweep.starts for sweep in soak.sweeps),
        "runs": len(runs),
        "attempts": sum((p.parent / "train.log").read_text().count("Training 1 on") for p in runs),
        "kills": dict(sorted(soak.kills.items())),
        "faults": faults,
    }
    console.print_json(json.dumps(figures))
    if not options.folder and not faults:
        shutil.rmtree(folder)
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
