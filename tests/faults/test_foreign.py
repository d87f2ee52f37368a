"""A run or sweep that an attacker has made: nothing in it is called, asked, followed or obeyed."""

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trainings
import yaml
from data_fixtures import TEST, TRAIN, write_dataset
from kit import OFF, QUIET, SMALL, command, only_sweep
from PIL import Image

from mnist_exp.config import Config
from mnist_exp.data import fetch
from mnist_exp.disk import ledger
from mnist_exp.disk.files import read_json, write_json

Tiny = Callable[..., Config]
Injected = Callable[..., None]
COMMANDS = {
    "evaluate": ("evaluate", "run=theirs"),
    "predict": ("predict", "run=theirs", "seven.png"),
    "rerun": ("rerun", "run=theirs"),
    "report": ("report", "theirs"),
    "sync": ("sync", "theirs"),
    "resume": ("train", "resume=theirs", "epochs=3", "force=true"),
}
ESCAPE = "\x1b]0;title\x07"


@pytest.fixture
def theirs(tiny: Tiny) -> Path:
    """A finished run outside of outputs/, and a picture to classify."""
    folder = Path("theirs")
    trainings.run(tiny(tracking={"enabled": True, "figures": False}), folder)
    Image.new("L", (28, 28)).save("seven.png")
    return folder


@pytest.fixture
def asked() -> Iterator[tuple[str, list[str]]]:
    """The address of a server, and the requests that it got."""
    requests: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            self.send_error(404)

        do_POST = do_GET

    listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{listener.server_port}", requests
    listener.shutdown()
    listener.server_close()


def change(folder: Path, part: str, **settings: Any) -> None:
    """Sets *settings* of that part of the stored config; of the top for an empty name."""
    plain = yaml.safe_load((folder / "config.yaml").read_text())
    (plain[part] if part else plain).update(settings)
    (folder / "config.yaml").write_text(yaml.safe_dump(plain))


@pytest.mark.faults(41)
@pytest.mark.parametrize("name", COMMANDS)
def test_what_it_names_is_neither_called_nor_asked(
    name: str, theirs: Path, asked: tuple[str, list[str]], injected: Injected
) -> None:
    """Its package would be built, its module imported, its server sent the token of the user."""
    address, requests = asked
    Path("canary.py").write_text("open('sang', 'w')")
    change(theirs, "data", name="mine", package=f"canary @ {address}/canary.tar.gz", torchvision="canary", root="..")
    change(theirs, "tracking", uri=address, register="theirs")
    (theirs / "mlflow.json").write_text(json.dumps({"store": address}))
    module, *typed = COMMANDS[name]
    for target in ("mnist_exp.models.MLP", "canary.Net"):
        change(theirs, "model", _target_=target)
        command(*typed, module=module, MLFLOW_TRACKING_TOKEN="canary", MLFLOW_TRACKING_URI="sqlite:///mlflow.db")
    assert not Path("sang").exists()
    assert requests == []
    injected(2)


@pytest.mark.faults(41)
@pytest.mark.parametrize("kind", ["symbolic link", "hard link", "pipe"])
def test_nothing_is_written_to_where_its_entries_lead_and_nobody_waits(
    kind: str, theirs: Path, injected: Injected
) -> None:
    victim = Path("victim")
    victim.write_text("mine")
    for name in ("train.log", ".lock"):
        (theirs / name).unlink(missing_ok=True)
        if kind == "pipe":
            os.mkfifo(theirs / name)
        elif kind == "hard link":
            (theirs / name).hardlink_to(victim)
        else:
            (theirs / name).symlink_to(victim.absolute())
        for module, *typed in (COMMANDS["resume"], COMMANDS["report"]):
            code, _, err = command(*typed, module=module)
            assert code == 2
            assert kind in err
        (theirs / name).unlink()
        injected()
    assert victim.read_text() == "mine"


RECORDS = {
    "nested brackets": ("ledger.json", '{"format": 1, "tags": ' + "[" * 100_000 + "]" * 100_000 + "}"),
    "an infinite number": ("ledger.json", '{"format": 1, "seconds": 1e999}'),
    "a long number": ("ledger.json", '{"format": 1, "started_ms": ' + "9" * 5000 + "}"),
    "other types": ("metrics.jsonl", '{"epoch": 1, "step": [], "time_ms": {}, "metrics": ["x"]}\n'),
    "no weights": ("weights.safetensors", "\0\0\0\0\0\0\1\0{"),
    "aliases of aliases": (
        "config.yaml",
        "a: &a [x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"{n}: &{n} [{','.join([f'*{o}'] * 9)}]\n" for o, n in zip("abcdefgh", "bcdefghi", strict=True)),
    ),
}


@pytest.mark.faults(42)
@pytest.mark.parametrize("what", RECORDS)
def test_a_record_that_fills_the_memory_or_the_stack_is_a_sentence(what: str, theirs: Path, injected: Injected) -> None:
    name, text = RECORDS[what]
    (theirs / name).write_text(text)
    for module, *typed in (COMMANDS["evaluate"], COMMANDS["rerun"], COMMANDS["report"]):
        code, out, err = command(*typed, module=module)
        assert code in (0, 1, 2)
        assert " (in " not in out + err  # as an unforeseen error is shown
        injected()


@pytest.mark.faults(42)
def test_names_are_shown_and_not_obeyed(theirs: Path, injected: Injected) -> None:
    """By no terminal, no browser and no spreadsheet."""
    record = read_json(theirs / "ledger.json")
    name = f"=1+1{ESCAPE}<script>alert(1)</script>"
    write_json(theirs / "ledger.json", {**record, "name": name, "host": ESCAPE, "reason": name})
    for module, *typed in COMMANDS.values():
        _, out, err = command(*typed, module=module)
        assert not set("\x1b\x07") & set(out + err)
        injected()
    page, table = ((theirs / name).read_text() for name in ("report.html", "runs.csv"))
    assert "<script>alert" not in page
    assert ",'=1+1" in table


@pytest.mark.faults(43)
@pytest.mark.parametrize("many", [[], ["-m"]], ids=["run", "sweep"])
def test_images_that_are_not_what_is_trained_on(many: list[str], injected: Injected) -> None:
    folder = write_dataset(Path("images"))
    labels = bytearray((folder / fetch.FILES[1]).read_bytes())
    labels[-1] = 10
    (folder / fetch.FILES[1]).write_bytes(labels)
    size = (f"data.train_images={TRAIN}", f"data.test_images={TEST}", "data.val_size=2")
    code, _, err = command(*many, *SMALL, "data=kmnist", "data.root=images", *size, OFF)
    assert code == 2
    assert "has the label 10 (of image 11), but data.num_classes=10 has labels 0 to 9" in err
    injected()


@pytest.mark.faults(44)
def test_a_sweep_whose_report_finds_no_room(injected: Injected) -> None:
    folder = Path("disk").absolute()
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "none", str(folder)], capture_output=True).returncode:
        pytest.skip("only the superuser can mount a small disk")
    try:
        quick = [*SMALL, "checkpoint.enabled=false", OFF, f"hydra.sweep.dir={folder}/s"]
        code, _, err = command("-m", *quick, "hidden=8,12,16")
        assert code == 0, err
        assert f"The report cannot be written: {folder}/s/" in err
        assert "No space left on device. Make room, then: python -m mnist_exp.report disk/s" in err
        assert [ledger.read(folder / "s" / str(i)).state for i in range(3)] == ["finished"] * 3
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
    injected()


@pytest.mark.faults(45)
def test_a_folder_with_files_that_are_called_as_modules_and_a_long_tmpdir(injected: Injected) -> None:
    """As the console script, which has no working folder among its modules."""
    for name in ("mlflow", "signal", "random", "selectors", "torch", "pandas"):
        Path(f"{name}.py").write_text("open('sang', 'a')\nraise ImportError('the wrong one')")
    (long := Path("x" * 100).absolute()).mkdir()
    script = "from mnist_exp.train import cli; cli()"
    typed = ["-m", *SMALL, "seed=0,1", QUIET, "tracking.figures=false"]
    environment = {**os.environ, "TMPDIR": str(long)}
    done = subprocess.run([sys.executable, "-P", "-c", script, *typed], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not Path("sang").exists()
    assert (only_sweep() / "0" / "mlflow.json").exists()
    injected(2)
