"""Services that the cluster tests start on this machine: Slurm, PostgreSQL, MLflow's server.

Each comes from Debian's packages or from pip, listens on 127.0.0.1, keeps its files in a temporary folder, and ends
with the test. If one cannot run, the test is skipped with the reason.
"""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from kit import wait_for


def free_port() -> int:
    """A free port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A temporary folder with a short path that every user may enter, for sockets and databases."""
    with tempfile.TemporaryDirectory(prefix="mnist_exp-", ignore_cleanup_errors=True) as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


def needs_root(*programs: str) -> None:
    """Skips the test if *programs* are missing or cannot be started as the user that they need."""
    if missing := [p for p in programs if not shutil.which(p, path=f"{os.environ['PATH']}:/usr/sbin")]:
        pytest.skip(f"{missing[0]} is not installed (Debian: apt-get install slurm-wlm munge postgresql)")
    if os.getuid() != 0:
        pytest.skip("only root can start the service here")


SLURM = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# The delay of a requeued job; the default is two minutes.
AuthInfo=socket={here}/munge.socket,cred_expire=5
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={here}/state
SlurmctldPidFile={here}/slurmctld.pid
SlurmctldLogFile={here}/slurmctld.log
SlurmdSpoolDir={here}/spool
SlurmdPidFile={here}/slurmd.pid
SlurmdLogFile={here}/slurmd.log
ProctrackType=proctrack/linuxproc
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,batch_sched_delay=0
ReturnToService=2
MpiDefault=none
KillWait=5
# Jobs of the second partition preempt those of the first, which get SIGTERM and later SIGKILL.
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
MaxArraySize={largest}
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} Gres=gpu:1 State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES State=UP PriorityTier=1 GraceTime=3
PartitionName=urgent Nodes=ALL State=UP PriorityTier=2
"""


@contextlib.contextmanager
def slurm(largest: int = 1001) -> Iterator[None]:
    """Runs a Slurm cluster of this machine alone, without accounting, and sets SLURM_CONF; its one GPU is fake.

    Args:
        largest: One more than the highest index of a job array.
    """
    needs_root("munged", "slurmctld", "slurmd", "sbatch")
    host = socket.gethostname().split(".")[0]
    with folder() as here, pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as running:
        for name in ("state", "spool"):
            (here / name).mkdir()
        (here / "key").write_bytes(os.urandom(1024))
        (here / "key").chmod(0o400)
        ports = (free_port(), free_port())
        text = SLURM.format(host=host, here=here, ports=ports, cores=os.cpu_count(), largest=largest)
        (here / "slurm.conf").write_text(text)
        (here / "gres.conf").write_text("Name=gpu File=/dev/null\n")
        patch.setenv("SLURM_CONF", str(here / "slurm.conf"))
        patch.setenv("PATH", f"{os.environ['PATH']}:/usr/sbin")
        files = {"socket": "munge.socket", "key-file": "key", "pid-file": "munged.pid"}
        files |= {"log-file": "munged.log", "seed-file": "seed"}
        subprocess.run(["munged", "--force", *(f"--{k}={here / v}" for k, v in files.items())], check=True)
        running.callback(end, here / "munged.pid")
        for daemon in (["slurmctld"], ["slurmd", "-N", host]):
            subprocess.run(daemon, check=True)
            running.callback(end, here / f"{daemon[0]}.pid")
        running.callback(subprocess.run, ["scancel", "--user=root"], check=False)
        wait_for(lambda: "idle" in output("sinfo", "--noheader", "--format=%T"), "Slurm's node is idle")
        yield


def end(pid_file: Path) -> None:
    """Ends the daemon with that pid file."""
    with contextlib.suppress(OSError, psutil.Error):
        daemon = psutil.Process(int(pid_file.read_text()))
        daemon.terminate()
        daemon.wait(20)


def output(*command: str) -> str:
    """The output of *command*."""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """Runs a PostgreSQL server with an empty database; yields its URI for SQLAlchemy."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    needs_root("runuser")
    if not programs:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    as_postgres, port = ["runuser", "-u", "postgres", "--"], free_port()
    with folder() as here:
        owner = pwd.getpwnam("postgres")
        os.chown(here, owner.pw_uid, owner.pw_gid)
        data = str(here / "data")
        quiet = {"check": True, "stdout": subprocess.DEVNULL, "cwd": here}
        subprocess.run([*as_postgres, programs[-1] / "initdb", "--auth=trust", data], **quiet)  # type: ignore[call-overload]
        control = [*as_postgres, programs[-1] / "pg_ctl", "-D", data, "-w"]
        where = f"-p {port} -k {here} -c listen_addresses=127.0.0.1"
        subprocess.run([*control, "-l", here / "log", "-o", where, "start"], **quiet)  # type: ignore[call-overload]
        try:
            yield f"postgresql+psycopg2://postgres@127.0.0.1:{port}/postgres"
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], **quiet)  # type: ignore[call-overload]


@dataclass
class Server:
    """MLflow's tracking server on loopback, started as in docs/cluster.md."""

    store: str
    """The database's URI."""
    here: Path
    """The folder of its artifacts and its log."""
    options: tuple[str, ...] = ()
    port: int = 0

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Returns when it answers."""
        self.port = self.port or free_port()
        command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", self.store]
        command += ["--artifacts-destination", str(self.here / "artifacts"), "--host", "127.0.0.1"]
        command += ["--port", str(self.port), "--workers", "2", *self.options]
        settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with (self.here / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, env=os.environ | settings, stdout=log, stderr=log, cwd=self.here, start_new_session=True
            )
        wait_for(self.healthy, f"{self.uri} answers")

    def healthy(self) -> bool:
        assert self.process.poll() is None, (self.here / "server.log").read_text()
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer:
            return bool(answer.status == 200)
        return False

    def signal(self, number: int) -> None:
        """Sends a signal to the server and all its workers."""
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        """Ends it at once, as a crash would."""
        self.signal(signal.SIGKILL)
        self.process.wait()


@contextlib.contextmanager
def server(store: str, *options: str) -> Iterator[Server]:
    """A running `Server` on *store*."""
    pytest.importorskip("psycopg2", reason='psycopg2 is not installed: pip install -e ".[server]"')
    with folder() as here:
        served = Server(store, here, options)
        served.start()
        try:
            yield served
        finally:
            with contextlib.suppress(ProcessLookupError):
                served.kill()
