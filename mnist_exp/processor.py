"""Which processor this is, on which choices for speed depend, and advice."""

import re

from mnist_exp import system


def is_intel() -> bool:
    """Whether this machine's processor is Intel's."""
    return "GenuineIntel" in system.processor()


def is_zen5() -> bool:
    """Whether it is AMD's of the fifth Zen generation or later: its units for AVX-512 are 512 bits wide."""
    family = re.search(r"family\W+(\d+)", system.processor(), re.IGNORECASE)
    return "AuthenticAMD" in system.processor() and family is not None and int(family[1]) >= 26


def lacks_bfloat16() -> bool:
    """Whether this processor is known to have no arithmetic in bfloat16: torch then makes do, many times slower."""
    known = re.search(r"^(flags|Features)\s*:(.*)", system.processor(), re.MULTILINE)
    return known is not None and not re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", known[2])


SLOW_BFLOAT16 = "This processor has no bfloat16: precision=bf16 is many times slower on it than fp32."
