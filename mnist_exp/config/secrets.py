"""What must not get into files: the one owner of what counts as a secret, and of every redaction.

Everything that is configured is written down, many times: by Hydra, into the run's folder, into MLflow. So a secret is
refused before anything is written. It belongs in the environment; a config may hold a reference to it.
"""

import functools
import os
import re
from collections.abc import Iterator
from typing import Any

from mnist_exp.errors import ConfigError

_MEASURE = r"(?:dims?|sizes?|len|length|count|heads|dropout|rate)"  # token_dim is a number of a network
_NAME = re.compile(
    r"(?i)(?:[_-]key(?![a-z])|(?:api|access|account|private|shared)[_-]?keys?|token(?![a-z])|secret|password|passwd|passphrase"
    r"|[_-]pwd(?![a-z])|credential|authorization|(?<![a-z])o?auth(?![a-z]))"
    rf"(?![\w-]*[_-]{_MEASURE}(?![\w-]))"
)
_LOGIN = re.compile(r"""(//)[^/\s"'<>]+@""")  # to the last @: a password may hold one, too
_CREDENTIALS = re.compile(r"https?://[^/\s@]+@|\w://[^/\s:@]*:[^/\s@]+@")  # a user alone is none, but for HTTP
_QUERY = re.compile(r"([?&;])([\w.-]+)=([^&;\s]*)")
_NOTHING = r"(?:true|false|null|none)\b"
_REFERENCE = r"\$\{oc\.env:\w+(?:,null)?\}"
_HARMLESS = re.compile(f"(?:{_REFERENCE})?")
_ASSIGNED = re.compile(rf"""(?i)(?<![\w.-])([\w.-]+)["']?\s*[:=]\s*["']?(?!{_NOTHING}|{_REFERENCE})(?=[^\s"'])""")
_SHORTEST = 8  # characters; a shorter value of the environment may stand in a config by chance

# A name, what stands between it and the value, and the value.
_QUOTED = re.compile(r"""(?<![\w.-])([\w.-]+)(["']?\s*[:=]\s*(["']))[^"'\n]+(?=\3)""")
_LINE = (
    re.compile(  # of YAML, of a shell, or of an .ini file, behind the sign that a difference of files puts before it
        r"(?im)^([-+ ]?[ \t]*(?:- +|export +|set +)?[\"']?[\w.-]+)([\"']?\s*(?::[ \t]+|=[ \t]*))"
        rf"(?!{_NOTHING}|(?:str|int|float|bool|bytes|Any)\b)[^\s\"'({{\[]+(?=\s|;|$)"
    )
)
_SHOUTED = re.compile(r"\b([A-Z0-9_]+)(\s*=\s*)[^\s\"'(]+(?=\s|;|$)")  # in a command, for example
_BEARER = re.compile(r"(?i)\b(bearer|basic)(\s+)[\w.~+/=-]{8,}")


@functools.lru_cache(maxsize=10_000)  # each config of a sweep has the same names
def named(name: str) -> bool:
    """Whether *name*, a dotted key or a variable of the environment, is that of a secret."""
    return bool(_NAME.search(name))


def first(plain: Any) -> str | None:
    """The dotted key of the first secret in *plain*, a tree of plain data; None if there is none.

    A secret is an address with a password, any value below a secret's name, or the value of an environment variable
    with such a name. A reference such as `${oc.env:NAME}` is none.
    """
    kept = [value for name, value in os.environ.items() if _holds_secret(name, value)]
    for key, value in _leaves(plain, ""):
        if value is None or isinstance(value, bool):
            continue
        text = str(value)
        secret = named(key) or _in_address(text) or any(each in text for each in kept)
        if secret and not _HARMLESS.fullmatch(text):
            return key
    return None


def _holds_secret(name: str, value: str) -> bool:
    """Whether the variable *name* holds a secret; the path of a file is none."""
    return len(value) >= _SHORTEST and named(name) and not os.path.exists(value)  # noqa: PTH110  # any text


def _leaves(node: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        for name, inner in node.items():
            yield from _leaves(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list):
        for inner in node:
            yield from _leaves(inner, key)
    else:
        yield key, node


def _in_address(text: str) -> bool:
    """Whether *text* has an address with a password, or with a token in place of the user or in its query."""
    if "://" not in text:
        return False
    queries = (match[2] for match in _QUERY.finditer(text) if match[3] and not _HARMLESS.fullmatch(match[3]))
    return bool(_CREDENTIALS.search(text)) or any(map(_named_in_query, queries))


def _named_in_query(name: str) -> bool:
    return named(f"_{name}")  # in a query a bare `key` is a secret, too


def typed(override: str) -> bool:
    """Whether an override sets a secret."""
    return _in_address(override) or any(named(match[1]) for match in _ASSIGNED.finditer(override))


def refusal(key: str) -> ConfigError:
    """The error for a secret under *key*: a config is written to files."""
    if key == "tracking.uri":
        return ConfigError(
            "tracking.uri holds a password, and a run writes its config to files and to MLflow.",
            "Set MLFLOW_TRACKING_URI in the environment instead, and leave tracking.uri out.",
        )
    return ConfigError(
        f"{key} looks like a secret, and a run writes its config to files and to MLflow.",
        "Leave it in the environment, and read it there, where it is used.",
    )


def without_login(text: str) -> str:
    """An address, or a text with some, without user and password, and without the value of a secret in its query."""
    text = _LOGIN.sub(r"\1", text)
    return _QUERY.sub(lambda match: f"{match[1]}{match[2]}=…" if _named_in_query(match[2]) else match[0], text)


def masked(name: str, value: str) -> str:
    """*value* of the variable *name* as it may be shown."""
    return "set, not shown" if named(name) else without_login(value)


def hide(text: str) -> str:
    """*text*, such as a difference of files, with `…` in the place of what looks like a secret."""
    for pattern in (_QUOTED, _LINE, _SHOUTED):
        text = pattern.sub(_without_value, text)
    text = _BEARER.sub(r"\1\2…", text)
    return _LOGIN.sub(r"\1…@", text)


def _without_value(match: re.Match[str]) -> str:
    return f"{match[1]}{match[2]}…" if named(match[1]) else match[0]
