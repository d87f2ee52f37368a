"""How a number is written, wherever people read one."""

import re

_EXPONENT = re.compile(r"e([+-])0*(?=\d)")
_NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+(?:[eE][+-]?\d+)?|[eE][+-]?\d+)(?![\w.])")


def brief(number: float, digits: int = 6) -> str:
    """*number* as one types it: `0.001`, `1e9`, `1e-5`; at most so many significant *digits*."""
    return _EXPONENT.sub(lambda match: f"e{match[1].strip('+')}", f"{number:.{digits}g}")


def in_text(text: str) -> str:
    """*text*, such as an override, with the numbers in it that are no whole ones written as by `brief`."""
    return _NUMBER.sub(lambda match: brief(float(match[0])), text)
