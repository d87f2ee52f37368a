"""The doctor finds what was broken on purpose, says how to mend it, and shows no secret."""

import io
import json
import os
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
from data_fixtures import contents, described, write_dataset
from packaging.requirements import Requirement

from mnist_exp import doctor
from mnist_exp.config import secrets
from mnist_exp.data import fetch
from mnist_exp.doctor import Check
from mnist_exp.tracking.store import Store


def check_of(name: str, checks: Iterator[Check]) -> Check:
    return next(check for check in checks if check.name == name)


def call(*typed: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, without what this process has added to its environment."""
    command = [sys.executable, "-m", "mnist_exp.doctor", *typed]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**environ, **variables})


@pytest.mark.integration
def test_the_command_passes_a_sound_machine_and_hides_secrets() -> None:
    done = call("--json", MLFLOW_TRACKING_PASSWORD="hush", HTTPS_PROXY="http://me:hush@proxy:80")
    assert done.returncode == 0, done.stdout
    report = json.loads(done.stdout)
    assert report["ok"]
    checks = {check["name"]: check for check in report["checks"]}
    assert checks["torch"]["state"] == checks["device"]["state"] == checks["outputs"]["state"] == "ok"
    assert checks["store"]["finding"].endswith("mlflow.db does not exist yet; the first run makes it")
    assert checks["data mnist"]["help"] == "Now: python -m mnist_exp.data fetch mnist"
    assert checks["$HTTPS_PROXY"]["finding"] == "http://proxy:80"
    assert "hush" not in done.stdout + done.stderr
    assert "$MLFLOW_LOGGING_LEVEL" not in checks  # ours, not the user's
    assert not Path("mlflow.db").exists()  # it only looks


@pytest.mark.integration
def test_the_command_fails_on_a_fault_and_says_how_to_mend_it(
    scratch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (scratch / "mlflow.db").write_text("no database")
    with pytest.raises(SystemExit) as left:
        doctor.main([])
    assert left.value.code == 1
    said = capsys.readouterr().out.splitlines()
    (at,) = [i for i, line in enumerate(said) if line.startswith("fault")]
    assert "file is not a database" in said[at]
    assert "help: Move it away, then send everything anew: python -m mnist_exp.sync" in said[at + 1]
    assert "1 fault," in said[-1]


@pytest.mark.integration
def test_a_store_that_is_sound_locked_or_of_another_schema(mlflow_store: Callable[[str], Store]) -> None:
    mlflow_store("here")
    check = check_of("store", doctor.store())
    assert check.state == "ok"
    assert "0 runs, schema " in check.finding
    with sqlite3.connect("mlflow.db") as other:
        other.execute("BEGIN EXCLUSIVE")
        check = check_of("store", doctor.store())
        assert (check.state, "locked" in check.finding) == ("fault", True)
        assert "fuser" in check.help
        other.rollback()
        other.execute("INSERT INTO runs (run_uuid) VALUES ('abc')")  # an empty one need not be kept
        for schema, mend in (("abc", "A newer mlflow has made it"), ("451aebb31d03", "mlflow db upgrade sqlite:///")):
            other.execute("UPDATE alembic_version SET version_num = ?", (schema,))
            other.commit()
            check = check_of("store", doctor.store())
            assert (check.state, f"has schema {schema}" in check.finding) == ("fault", True)
            assert mend in check.help
    other.close()


@pytest.mark.integration
def test_a_server_that_answers_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    class Version(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/version" else 404)
            self.end_headers()
            self.wfile.write(b"3.17.2")

        def log_message(self, format: str, *args: object) -> None:
            """Not on the screen."""

    with HTTPServer(("127.0.0.1", 0), Version) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:hush@127.0.0.1:{server.server_port}")
        check = check_of("store", doctor.store())
        server.shutdown()
        thread.join()
        assert check == Check("store", "ok", f"http://127.0.0.1:{server.server_port}, MLflow 3.17.2")
    with socket.socket() as closed:  # bound, but nobody listens
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:hush@127.0.0.1:{closed.getsockname()[1]}")
        check = check_of("store", doctor.store())
    assert (check.state, "hush" in str(check)) == ("fault", False)
    assert "cannot be reached: [Errno" in check.finding
    assert "mnist_exp.sync" in check.help


@pytest.mark.integration
def test_images_of_your_own_are_not_to_be_fetched() -> None:
    """There is nothing to fetch: previously it advised `mnist_exp.data fetch folder`, which is refused."""
    check = check_of("data folder", doctor.data())
    assert check == Check("data folder", "note", "images of your own", "Say where they are: data=folder data.root=…")


DELETED = "The experiment 'mnist_exp' in {} was deleted"


def test_an_experiment_that_was_deleted_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a server, or in another database."""

    def urlopen(page: str, timeout: float) -> io.BytesIO:
        if "get-by-name?experiment_name=mnist_exp" not in page:
            return io.BytesIO(b"3.17.2")
        return io.BytesIO(b'{"experiment": {"experiment_id": "7", "lifecycle_stage": "deleted"}}')

    monkeypatch.setattr(doctor.urllib.request, "urlopen", urlopen)
    monkeypatch.setattr(doctor.subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=0, stdout="7\n"))
    for uri in ("http://host", "postgresql://host/db"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        check = check_of("store", doctor.store())
        assert (check.state, check.finding) == ("fault", DELETED.format(uri))
        assert f"MLFLOW_TRACKING_URI={uri} mlflow experiments restore -x 7" in check.help


def test_no_password_is_an_argument_of_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everybody on the machine sees those."""
    asked: list[tuple[list[str], dict[str, str]]] = []

    def run(command: list[str], env: dict[str, str], **settings: object) -> SimpleNamespace:
        asked.append((command, env))
        return SimpleNamespace(returncode=0, stdout="", stderr="")

    monkeypatch.setattr(doctor.subprocess, "run", run)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:hunter2@host/db")
    assert check_of("store", doctor.store()) == Check("store", "ok", "postgresql://host/db")
    ((command, env),) = asked
    assert "hunter2" not in " ".join(command)
    assert env["MLFLOW_TRACKING_URI"] == "postgresql://me:hunter2@host/db"


def test_data_files_that_are_missing_damaged_or_right(scratch: Path) -> None:
    data = described(write_dataset(scratch / "files"))
    assert set(fetch.inspect(data)[1].values()) == {""}
    path = scratch / "files" / fetch.FILES[0]
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    (scratch / "files" / fetch.FILES[1]).unlink()
    folder, files = fetch.inspect(data)
    assert folder == scratch / "files"
    assert files[fetch.FILES[0]].startswith("sha256 is ")
    assert [files[name] for name in fetch.FILES[1:]] == ["missing", "", ""]
    packed = described(write_dataset(scratch / "packed", packed=True))
    assert set(fetch.inspect(packed)[1].values()) == {""}
    (scratch / "packed" / f"{fetch.FILES[0]}.gz").write_bytes(b"torn")
    assert "is damaged" in fetch.inspect(packed)[1][fetch.FILES[0]]
    assert len(list((scratch / "packed").iterdir())) == 4  # it has only looked


@pytest.mark.integration
def test_damaged_data_is_a_fault() -> None:
    write_dataset(Path("data") / "mnist")  # small files, which are not MNIST's
    check = check_of("data mnist", doctor.data())
    assert check.state == "fault"
    assert check.help == "Again: python -m mnist_exp.data fetch mnist"


@pytest.mark.integration
def test_part_of_the_data_is_a_warning() -> None:
    folder = Path("data") / "kmnist"
    folder.mkdir(parents=True)
    name, content = next(iter(contents().items()))
    (folder / name).write_bytes(content)
    assert check_of("data kmnist", doctor.data()).finding == "3 of 4 files are not in data/kmnist"


def test_little_space_warns_and_less_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    for free, state in ((2**33, "ok"), (2**29, "warning"), (2**20, "fault")):
        monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder, free=free: SimpleNamespace(free=free))
        assert check_of("outputs", doctor.disk()).state == state


def test_a_folder_that_cannot_be_written_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(dir: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)
    check = check_of("outputs", doctor.disk())
    assert (check.state, check.finding) == ("fault", f"{Path.cwd()} cannot be written: Permission denied")


def test_packages_that_are_missing_or_too_old() -> None:
    assert doctor._installed(Requirement("numpy>=1")).state == "ok"
    assert doctor._installed(Requirement("numpy>=99")).help == 'Install a fitting one: pip install "numpy>=99"'
    assert doctor._installed(Requirement("no-such-package")).finding == "is not installed"


def test_one_look_that_fails_is_a_fault_of_its_own() -> None:
    def lungs() -> Iterator[Check]:
        raise RuntimeError("no air")
        yield

    assert doctor._looked(lungs) == [Check("lungs", "fault", "RuntimeError: no air")]


def test_the_home_folder_is_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert doctor.at_home("/home/ada/x, sqlite:////home/ada/m.db, /home/adam") == "~/x, sqlite:///~/m.db, /home/adam"
    monkeypatch.setenv("HOME", "/")
    assert doctor.at_home("/data/x") == "/data/x"


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("MLFLOW_TRACKING_TOKEN", "abc", "set, not shown"),
        ("AWS_SECRET_ACCESS_KEY", "abc", "set, not shown"),
        ("MLFLOW_TRACKING_URI", "postgresql://me:abc@host/db", "postgresql://host/db"),
        ("PIP_INDEX_URL", "https://host/simple?token=abc&x=1", "https://host/simple?token=…&x=…"),
        ("OMP_NUM_THREADS", "2", "2"),
    ],
)
def test_masking(name: str, value: str, shown: str) -> None:
    assert secrets.masked(name, value) == shown
    assert [check.finding for check in doctor.environment({name: value, "HOME": "x"})] == [shown]


def test_each_check_is_a_line_with_its_help_below(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    looks = [
        Check("a", "ok", "is there"),
        Check("longer", "warning", "is [old]", "Renew it."),
        Check("c", "note", "so"),
    ]
    monkeypatch.setattr(doctor, "LOOKS", (lambda: iter(looks),))
    doctor.main([])
    assert capsys.readouterr().out.splitlines() == [
        "ok      a       is there",
        "warning longer  is [old]",
        "                help: Renew it.",
        "note    c       so",
        "no faults, 1 warning.",
    ]
    looks.append(Check("d", "fault", "is missing"))
    with pytest.raises(SystemExit) as left:
        doctor.main(["--json"])
    assert left.value.code == 1
    report = json.loads(capsys.readouterr().out)
    assert not report["ok"]
    assert [check["state"] for check in report["checks"]] == ["ok", "warning", "note", "fault"]
