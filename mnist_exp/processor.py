"""Who made the processor: two choices for speed depend on it."""

import functools
import platform
from pathlib import Path


@functools.cache
def is_intel() -> bool:
    """Whether this machine's processor is Intel's: Linux says so in a file, other systems by themselves."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as cores:
            said = cores.read(1000)  # the first core; a server has hundreds
    except OSError:
        said = platform.processor()
    return "GenuineIntel" in said
