"""Which processor this is: choices for speed depend on it, and advice."""

import functools
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
