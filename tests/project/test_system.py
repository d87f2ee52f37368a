"""What depends on the system: here on Linux, with the answers of others put in its place."""

from pathlib import Path

import pytest

from mnist_exp import system

FREE = {"/proc/meminfo": "MemTotal: 9000000 kB\nMemAvailable:   3000000 kB\n", "/proc/self/cgroup": "0::/box\n"}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (FREE, 3_072_000_000),
        (FREE | {"/sys/fs/cgroup//box/memory.max": "2000000000\n"}, 2_000_000_000),
        (FREE | {"/sys/fs/cgroup//box/memory.max": "max\n", "/sys/fs/cgroup///memory.max": "1000\n"}, 1000),
        (
            FREE
            | {"/proc/self/cgroup": "4:memory:/box\n0::/\n", "/sys/fs/cgroup/memory//box/memory.limit_in_bytes": "500"},
            500,
        ),
    ],
)
def test_memory_is_what_is_free_and_allowed(
    files: dict[str, str], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = {Path(name): text for name, text in files.items()}
    monkeypatch.setattr(system, "_text", lambda path: paths.get(Path(path), ""))
    assert system.memory() == expected


def test_this_machine_has_some() -> None:
    assert 2**20 < system.memory() < 2**50
