"""What must not get into files: passwords in addresses, and what is called a key, a token, a secret or a password.

Everything that is configured is written down, many times: by Hydra, into the run's folder, into MLflow. So a secret is
refused before that; its place is the environment, and what a config may hold is a reference to it.
"""

import os
import re
from collections.abc import Iterator
from typing import Any

_ADDRESS = re.compile(r"https?://[^/\s@]+@|\w://[^/\s:@]*:[^/\s@]+@")
_NAME = r"(?:[_-]key|apikey|token|secret|password)"
_SECRET = re.compile(rf"(?i){_NAME}$")
_NOTHING = r"(?:true|false|null|none)\b"
_REFERENCE = r"\$\{oc\.env:\w+(?:,null)?\}"
_HARMLESS = re.compile(f"(?:{_REFERENCE})?")
_ASSIGNED = re.compile(rf"""(?i){_NAME}["']?\s*[:=]\s*["']?(?!{_NOTHING}|{_REFERENCE})[^\s"']""")
_SHORTEST = 8  # characters; a shorter value of the environment may stand in a config by chance

_QUOTED = re.compile(rf"""({_NAME}["']?\s*[:=]\s*)(["'])[^"'\n]+\2""", re.IGNORECASE)
_LINE = (
    re.compile(  # of YAML, of a shell, or of an .ini file, behind the sign that a difference of files puts before it
        rf"(?im)^([-+ ]?[ \t]*(?:- +|export +|set +)?[\"']?[\w.-]*{_NAME}[\"']?\s*(?::[ \t]+|=[ \t]*))"
        rf"(?!{_NOTHING}|(?:str|int|float|bool|bytes|Any)\b)[^\s\"'({{\[]+(?=\s|;|$)"
    )
)
_SHOUTED = re.compile(r"\b([A-Z0-9_]*(?:_KEY|TOKEN|SECRET|PASSWORD)\s*=\s*)[^\s\"'(]+(?=\s|;|$)")  # in a command, say
_BEARER = re.compile(r"(?i)\b(bearer|basic)(\s+)[\w.~+/=-]{8,}")


def first(plain: Any) -> str | None:
    """The dotted key of the first secret in *plain*, a tree of plain data; None if there is none.

    A secret is an address with a password, anything under a secret's name, or what a variable of such a name has in
    the environment. A reference such as `${oc.env:NAME}` is none.
    """
    kept = [value for name, value in os.environ.items() if _SECRET.search(name) and len(value) >= _SHORTEST]
    for key, value in _leaves(plain, ""):
        if value is None or isinstance(value, bool):
            continue
        text = str(value)
        address = "://" in text and _ADDRESS.search(text)
        if (address or _SECRET.search(key) or any(each in text for each in kept)) and not _HARMLESS.fullmatch(text):
            return key
    return None


def _leaves(node: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        for name, inner in node.items():
            yield from _leaves(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list):
        for inner in node:
            yield from _leaves(inner, key)
    else:
        yield key, node


def typed(override: str) -> bool:
    """Whether an override sets a secret."""
    return bool(_ADDRESS.search(override) or _ASSIGNED.search(override))


def hide(text: str) -> str:
    """*text*, such as a difference of files, with `…` in the place of what looks like a secret."""
    text = _LINE.sub(r"\1…", _QUOTED.sub(r"\1\2…\2", text))
    text = _BEARER.sub(r"\1\2…", _SHOUTED.sub(r"\1…", text))
    return re.sub(r"(\w://)[^/\s@]*:?[^/\s@]+@", r"\1…@", text)
