"""`python -m mnist_exp.ui` from its first line to Ctrl-C."""

import os
import signal
import socket
import urllib.request
from pathlib import Path

import kit
import pytest
from report_fixtures import make_run
from samples import TINY

from mnist_exp import train_from
from mnist_exp.console import exits
from mnist_exp.ui import __main__ as ui
from mnist_exp.ui import mlflow as beside


@pytest.mark.integration
def test_it_prints_one_address_and_ends_with_ctrl_c() -> None:
    make_run(Path("outputs/runs/2026-01-31/11-00-00-abcdef"), ["hidden=8"], 0.8)
    process = kit.start("--no-open", "--no-mlflow", module="ui")
    assert process.stdout
    address = process.stdout.readline().strip()
    assert process.stdout.readline() == "Ctrl-C ends it.\n"
    with urllib.request.urlopen(address) as answer:
        assert b"11-00-00-abcdef" in answer.read()
    process.send_signal(signal.SIGINT)
    code, out, err = kit.end(process)
    assert (code, err) == (0, "")
    assert out == "Stopped.\n"
    assert not Path("mlflow.db").exists()


@pytest.mark.integration
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_mlflow_is_beside_it_and_ends_with_it(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the real one, which takes ten seconds: something that listens, and has started a process of its own."""
    Path("mlflow.db").write_text("a store")
    Path("stand/mlflow").mkdir(parents=True)
    Path("stand/mlflow/__init__.py").touch()
    Path("stand/mlflow/__main__.py").write_text(
        "import http.server, os, pathlib, sys, time\n"
        "pathlib.Path('started').write_text(os.environ['MLFLOW_BACKEND_STORE_URI'])\n"
        "if not os.fork(): time.sleep(600)\n"
        "http.server.HTTPServer(('127.0.0.1', int(sys.argv[-1])), http.server.BaseHTTPRequestHandler).serve_forever()\n"
    )
    here = os.environ["PYTHONPATH"]
    process = kit.start("--no-open", module="ui", PYTHONPATH=os.pathsep.join([str(Path("stand").resolve()), here]))
    assert process.stdout
    address = process.stdout.readline().strip()

    def page() -> str:
        with urllib.request.urlopen(address) as answer:
            return str(answer.read().decode())

    kit.wait_for(lambda: '<p><a href="http://127.0.0.1:' in page())
    assert Path("started").read_text().endswith("/mlflow.db")
    process.send_signal(number)
    assert kit.end(process)[0] == (0 if number == signal.SIGINT else 143)
    kit.wait_for(lambda: not kit.processes())


def test_a_port_in_use_says_the_way_out(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert exits.run(lambda: ui.main(["--port", str(port), "--no-open"])) == 2
    err = capsys.readouterr().err
    assert f"error: Port {port} of 127.0.0.1 cannot be used: Address already in use." in err
    assert "help: Choose another: --port 8001, or leave it out for any that is free." in err
    assert exits.run(lambda: ui.main(["--port", "70000", "--no-open"])) == 2


def test_a_store_that_is_not_there_is_not_made() -> None:
    mlflow = beside.MLflow()
    assert mlflow.look() == ("", "Nothing is tracked in MLflow yet.")
    assert mlflow.process is None
    assert not Path("mlflow.db").exists()


def test_an_mlflow_that_ends_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("mlflow.db").write_text("a store")
    monkeypatch.setattr(beside.sys, "executable", "/bin/false")
    mlflow = beside.MLflow()
    for _ in range(2):  # at the usual port, and at another
        mlflow.look()
        assert mlflow.process
        mlflow.process.wait()
    assert mlflow.look() == ("", "MLflow has ended with 1: mlflow ui says why.")
    mlflow.close()


def test_the_usual_port_taken_at_the_same_moment_is_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two commands that start together both see it free; MLflow of the second ends."""
    Path("mlflow.db").write_text("a store")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setattr(beside, "USUAL", probe.getsockname()[1])
    monkeypatch.setattr(beside.sys, "executable", "/bin/false")
    mlflow = beside.MLflow()
    mlflow.look()
    address, first = mlflow.address, mlflow.process
    assert first
    first.wait()
    mlflow.look()
    assert mlflow.address != address
    assert mlflow.process
    assert mlflow.process is not first
    mlflow.process.wait()


@pytest.mark.slow  # the real one
def test_the_real_mlflow_answers_and_shows_the_run() -> None:
    result = train_from([*TINY[:-1]])
    process = kit.start("--no-open", module="ui")
    assert process.stdout
    address = process.stdout.readline().strip()

    def page() -> str:
        with urllib.request.urlopen(address) as answer:
            return str(answer.read().decode())

    kit.wait_for(lambda: '">MLflow</a></td>' in page())
    link = page().partition('">MLflow</a></td>')[0].rpartition('href="')[2]
    with urllib.request.urlopen(link.partition("#")[0]) as answer:
        assert b"MLflow" in answer.read()
    assert result.folder.name in page()
    process.send_signal(signal.SIGINT)
    assert kit.end(process)[0] == 0
    kit.wait_for(lambda: not kit.processes())
