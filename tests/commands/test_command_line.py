"""The real command line in its own processes; few tests, because each takes seconds."""

import hashlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import warm
from report_fixtures import make_run
from samples import TINY, once

from mnist_exp.disk import ledger

COMMAND = [sys.executable, "-m", "mnist_exp.train", *TINY]


@pytest.mark.integration
def test_a_typo_leaves_with_2_and_one_sentence() -> None:
    done = subprocess.run([*COMMAND, "hiden=256"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "error: There is no setting 'hiden' (override 'hiden=256').",
        "  help: Did you mean 'hidden'? All settings: python -m mnist_exp.train --help all",
    ]


@pytest.mark.integration
@pytest.mark.parametrize("typed", [["batch_size=8", "batch_size=16"], ["-m", "hidden=8", "hidden=16"]], ids=" ".join)
def test_a_key_that_is_set_twice_leaves_with_2_and_nothing_is_written(typed: list[str]) -> None:
    """As bash makes it of hidden={8,16}; and Hydra would take the last."""
    command = [sys.executable, "-m", "mnist_exp.train", "data=synthetic", *typed]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    key, values = typed[-1].partition("=")[0], ",".join(each.partition("=")[2] for each in typed[-2:])
    assert f"{key} is set more than once: {typed[-2]} {typed[-1]}." in done.stderr
    assert f"-m {key}={values}" in done.stderr
    assert not list(Path().iterdir())


@pytest.mark.parametrize("sweep", [False, True])
def test_a_wrong_address_of_mlflow_stops_a_command_before_it_writes_anything(
    sweep: bool, command: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "localhost:5000")
    code, _, err = command(*(["-m", "seed=0,1"] if sweep else []), "data=synthetic")
    assert code == 2
    first, second = err.splitlines()
    assert first == "error: MLFLOW_TRACKING_URI must be the address of an MLflow store, but got 'localhost:5000'."
    assert second.startswith("  help: Try MLFLOW_TRACKING_URI=http://127.0.0.1:5000 or ")
    assert not Path("outputs").exists()


def test_m_may_stand_anywhere(command: Callable[..., tuple[int, str, str]]) -> None:
    code, _, err = command("hidden=8,-1", "-m", "lr=1e-3")
    assert code == 2
    assert "hidden must be a positive integer" in err


@pytest.mark.integration
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"])
def test_a_stopped_run_says_how_to_go_on(number: int, code: int) -> None:
    """The finished epochs are kept; Ctrl-C and SIGTERM differ in the exit code only."""
    command = once(*COMMAND, "epochs=100000", "checkpoint.enabled=false")
    environ = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ, preexec_fn=unignored
    ) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("Epoch 2/"):
                    process.send_signal(number)
                    break
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == code
    assert out.count("Stopping… Ctrl-C again leaves at once.") == 1
    assert err.startswith("error: Stopped in epoch ")
    assert "help: Go on with:\n    python -m mnist_exp.train resume=outputs/runs/" in err
    assert "Traceback" not in err
    (folder,) = Path("outputs/runs").glob("*/*")
    entry = ledger.read(folder)
    assert entry.state == "killed"
    assert entry.epoch >= 2


def with_screen(command: list[str], screen: str) -> "subprocess.CompletedProcess[str]":
    """Runs *command* with its output as *screen*, a shell's redirection, says; the result has what came through."""
    if screen.startswith("> /dev/full"):
        with Path("/dev/full").open("w") as full:
            errors = full if screen.endswith("2>&1") else subprocess.PIPE
            return subprocess.run(command, stdout=full, stderr=errors, text=True, check=False)
    if screen.startswith("| head"):
        pipe = subprocess.PIPE
        with subprocess.Popen(screen[2:].split(), stdin=pipe, stdout=pipe, text=True) as head:
            assert head.stdin and head.stdout  # noqa: PT018
            done = subprocess.run(command, stdout=head.stdin, stderr=pipe, text=True, check=False)
            head.stdin.close()
            return subprocess.CompletedProcess(command, done.returncode, head.stdout.read(), done.stderr)
    line = f"set -o pipefail; {shlex.join(command)} {screen}"
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)


COLD = pytest.mark.slow  # commands of a shell do not start warm


@pytest.mark.integration
@pytest.mark.parametrize(
    "screen", ["| head -4", "> /dev/full", *(pytest.param(by, marks=COLD) for by in ("2>&1 >&- | cat", ">&- 2>&-"))]
)
def test_training_goes_on_without_a_screen(screen: str) -> None:
    """The exit code is that of the training, and the log has the output that the screen has lost."""
    done = with_screen(once(*COMMAND, "epochs=9", "name='a long name'"), screen)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    (folder,) = Path("outputs/runs").glob("*/*")
    assert ledger.read(folder).state == "finished"
    log = (folder / "train.log").read_text()
    assert "Epoch 9/9" in log
    assert ("Standard output cannot be written" in log) == (screen in ("| head -4", "> /dev/full"))


@COLD
def test_a_failed_run_fails_without_a_screen_too() -> None:
    assert with_screen([*COMMAND, "lr=1e30"], "> /dev/full 2>&1").returncode == 1


@COLD
def test_a_sweep_goes_on_without_a_screen() -> None:
    done = with_screen(once(*COMMAND, "-m", "hidden=8,12", "hydra.sweeper.report=false"), "| head -1")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "Preparing a sweep:\n"
    folders = [path.parent for path in Path("outputs/sweeps").glob("*/*/*/ledger.json")]
    assert [ledger.read(folder).state for folder in folders] == ["finished"] * 2


@COLD
def test_what_prints_its_result_fails_where_that_is_lost_but_not_where_it_is_not_wanted() -> None:
    make_run(Path("outputs/runs/2026-01-31/one"), ["hidden=8"], 0.9)
    report = [sys.executable, "-m", "mnist_exp.report", "--json"]
    full = with_screen(report, "> /dev/full")
    assert full.returncode == 2
    assert "error: Standard output cannot be written: No space left on device." in full.stderr
    assert with_screen(report, "> /dev/full 2>&1").returncode == 2
    page = Path("outputs/runs/2026-01-31/one/report.html")
    page.unlink()
    head = with_screen(report[:-1], "| head -1")
    assert head.returncode == 0, head.stderr
    assert page.exists()


@pytest.mark.parametrize(
    "typed",
    [
        "search=tpe n_trials=30",
        "points=nofile.csv",
        "n_trials=5",
        "hydra.sweeper.seed=3",
        "hydra/sweeper=optuna",
        "hydra.sweep.dir=ss",
    ],
)
def test_a_sweep_without_m_is_not_a_single_run(typed: str, command: Callable[..., tuple[int, str, str]]) -> None:
    code, out, err = command(*TINY, *typed.split())
    assert code == 2
    assert out == ""
    assert f"error: {typed.split()[0]} is for a sweep, and this would be a single run." in err
    assert f"help: Add -m: python -m mnist_exp.train -m {' '.join(TINY)} {typed}\n" in err
    assert not Path("outputs").exists()


@pytest.mark.integration
@pytest.mark.parametrize(
    ("lines", "steers"),
    [
        ("hydra:\n  sweeper:\n    params:\n      hidden: 16,32\n", "hydra.sweeper.params.hidden=16,32"),
        ("defaults:\n  - override /search: random\n", "search=random"),
        ("n_trials: 3\n", "n_trials=3"),
    ],
)
def test_a_sweep_that_a_file_declares_needs_m_and_is_not_swept_itself(
    lines: str, steers: str, command: Callable[..., tuple[int, str, str]]
) -> None:
    file = Path("mine/experiment/declared.yaml")
    file.parent.mkdir(parents=True)
    file.write_text(f"# @package _global_\n{lines}")
    here = [*(word for word in TINY if "hidden" not in word), "experiment=declared", "--config-dir", "mine"]
    code, _, err = command(*here)
    assert code == 2
    assert f"{steers} is for a sweep, and this would be a single run." in err
    code, _, err = command("-m", *(word.replace("declared", "declared,beginner") for word in here))
    assert code == 2
    assert "error: experiment=declared sets " in err
    assert f"{steers.partition('=')[0]}, which a sweep has as a whole." in err
    assert not list(Path("outputs").rglob("ledger.json"))


def test_the_way_out_keeps_the_options_of_the_command(command: Callable[..., tuple[int, str, str]]) -> None:
    Path("mine").mkdir()
    _, _, err = command("--config-dir", "mine", "n_trials=5")
    assert "help: Add -m: python -m mnist_exp.train -m --config-dir mine n_trials=5\n" in err


def test_a_pruner_is_for_a_search(command: Callable[..., tuple[int, str, str]]) -> None:
    code, _, err = command("pruner=median")
    assert code == 2
    assert "help: Choose one, with -m: search=tpe" in err


@pytest.mark.integration
@pytest.mark.parametrize(
    "typed",
    [["hiden=16"], pytest.param(["lr=1e30"], marks=COLD), pytest.param(["-m", "hidden=8,12"], marks=COLD)],
    ids=" ".join,
)
def test_a_command_that_starts_warm_prints_and_leaves_the_same(typed: list[str]) -> None:
    """Most tests' commands are forks of a process that has loaded the libraries; see tests/support/warm.py."""
    came = []
    server = warm.Popen.server()
    here, before = server.environ | {"PYTHONPATH": os.environ["PYTHONPATH"]}, server.commands
    for start, environ in (("cold", warm.COLD), ("warm", {})):
        Path(start).mkdir()
        done = subprocess.run(
            [*COMMAND, *typed], cwd=start, env=here | environ, capture_output=True, text=True, check=False
        )
        files = [str(path.relative_to(start)) for path in sorted(Path(start).rglob("*"))]
        texts = [re.sub(CHANGING, "…", text) for text in (done.stdout, done.stderr, "\n".join(files))]
        weights = [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(Path(start).rglob("*.safetensors"))]
        came.append((done.returncode, *(sorted(text.splitlines()) for text in texts), weights))
    for cold, warmed in zip(*came, strict=True):
        assert cold == warmed
    assert server.commands == before + 1, "each command starts cold"


CHANGING = r"(?<=last-\d{4}-)\w{12}|\d\d-\d\d-\d\d-\w{6}|\d{4}-\d\d-\d\d|\[\d/\d\]|\d+\.\d+ s"
"""Names of folders, digests of checkpoints, which have the time, the order in which jobs end, seconds."""


def kill(server: warm.Server) -> None:
    assert server.process
    server.process.kill()
    server.process.wait()


def test_a_server_of_warm_starts_that_was_killed_is_replaced() -> None:
    server = warm.always(dict(os.environ))
    first = server()
    assert server() is first
    assert first.process
    assert psutil.Process(first.process.pid).cwd() == "/"
    kill(first)
    second = server()
    assert second is not first
    kill(second)
    second.connection.close()


def test_what_a_library_reads_while_it_is_imported_starts_cold() -> None:
    with socket.socket() as unused:
        server = warm.Server(unused, {"PYTHONPATH": "next", "OMP_NUM_THREADS": "1"})
        same = {"PYTHONPATH": "here:next", "OMP_NUM_THREADS": "1"}
        assert server.fits({**same, "TZ": "UTC", "MY_API_KEY": "x", "MNIST_EXP_HELD": "f"})
        for other in (
            {"OMP_NUM_THREADS": "2"},
            {"GOMP_SPINCOUNT": "9"},
            {"PYTHONPATH": "here"},
            {"LC_ALL": "C"},
            warm.COLD,
        ):
            assert not server.fits({**same, **other})


def unignored() -> None:
    """Restores Ctrl-C, which a background job of a shell ignores."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_a_command_leaves_without_a_search_for_garbage() -> None:
    watch = "atexit.register(lambda: print(gc.get_freeze_count() > 0))"  # atexit calls in reverse order
    code = f"import atexit, gc; {watch}; from mnist_exp.console import exits; exits.run(lambda: None)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def test_a_module_in_the_working_folder_is_found(
    command: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A console script has no working folder among its paths, `python -m` has."""
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(Path.cwd()))])
    Path("beside.py").write_text("from mnist_exp.models import MLP\n\nclass Mine(MLP):\n    pass\n")
    code, out, err = command(*TINY, "model._target_=beside.Mine")
    assert code == 0, err
    assert "mine with" in out


@pytest.mark.integration
def test_a_sweep_says_something_before_it_loads_anything_heavy(tmp_path: Path) -> None:
    """In an interpreter where torch, Optuna and MLflow cannot be loaded."""
    for name in ("torch", "optuna", "mlflow"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('too early')")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "mnist_exp.train", "-m", "hidden=8,16", "lr=1e-05"]
    environment = {**os.environ, **warm.COLD, "PYTHONPATH": path}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1
    assert "too early" in done.stderr
    assert done.stdout == "Preparing a sweep:\n  hidden=8,16 lr=1e-5\n"
