"""Which processor this is, on which choices for speed depend, and advice; and how much memory it has left."""

import functools
import os
import platform
import re
from pathlib import Path


@functools.cache
def description() -> str:
    """What Linux has in a file about the first core, and other systems say by themselves."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as cores:
            return cores.read(4000)  # a server has hundreds of cores
    except OSError:
        return platform.processor()


def is_intel() -> bool:
    """Whether this machine's processor is Intel's."""
    return "GenuineIntel" in description()


def is_zen5() -> bool:
    """Whether it is AMD's of the fifth Zen generation or later: its units for AVX-512 are 512 bits wide."""
    family = re.search(r"family\W+(\d+)", description(), re.IGNORECASE)
    return "AuthenticAMD" in description() and family is not None and int(family[1]) >= 26


def lacks_bfloat16() -> bool:
    """Whether this processor is known to have no arithmetic in bfloat16: torch then makes do, many times slower."""
    known = re.search(r"^(flags|Features)\s*:(.*)", description(), re.MULTILINE)
    return known is not None and not re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", known[2])


SLOW_BFLOAT16 = "This processor has no bfloat16: precision=bf16 is many times slower on it than fp32."


def memory() -> int:
    """Bytes of memory that are free or can be freed, within a container's limit; of other systems than Linux all."""
    sizes = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    if available := re.search(r"MemAvailable:\s+(\d+) kB", _text("/proc/meminfo")):
        sizes.append(1024 * int(available[1]))
    for line in _text("/proc/self/cgroup").splitlines():
        _, kind, group = line.split(":", 2)
        for path in {group, "/"}:  # a container sees its own group as the root
            limit = "memory/memory.limit_in_bytes" if kind == "memory" else "memory.max"
            folder, name = os.path.split(limit)
            sizes += map(int, re.findall(r"^\d+", _text(f"/sys/fs/cgroup/{folder}/{path}/{name}")))
    return min(sizes)


def _text(path: str) -> str:
    """What is in a file of the system; nothing where there is none."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""
