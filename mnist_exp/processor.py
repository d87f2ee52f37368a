"""Who made the processor: two choices for speed depend on it."""

import functools
import platform
from pathlib import Path


@functools.cache
def is_intel() -> bool:
    """Whether this machine's processor is Intel's: Linux says so in a file, other systems by themselves."""
    try:
        said = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        said = platform.processor()
    return "GenuineIntel" in said
