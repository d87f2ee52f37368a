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
    r"|(?<![a-z])(?:pwd|pw|pat|jwt|o?auth|bearer|cookie)(?![a-z])|[_-]pass(?![a-z])|credential|authorization"
    r"|connection[_-]?string)"
    rf"(?![\w-]*[_-]{_MEASURE}(?![\w-]))"
)
_TOKEN = (
    re.compile(  # as their issuers make them: GitHub, Hugging Face, AWS, Slack, OpenAI, Stripe, GitLab, Databricks, …
        r"(?<![A-Za-z0-9])(?:gh[opusr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|hf_[A-Za-z0-9]{20,}|A(?:KIA|SIA)[A-Z0-9]{16}"
        r"|xox[a-z]-[\w-]{10,}|sk-(?=[\w-]*\d)[\w-]{20,}|[sr]k_(?:live|test)_\w{16,}|glpat-[\w-]{16,}|dapi[0-9a-f]{32}"
        r"|AIza[\w-]{35}|npm_[A-Za-z0-9]{30,}|pypi-[\w-]{50,}|eyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?"
        r"|-----BEGIN [A-Z ]*PRIVATE KEY-----)"
    )
)
_ADDRESS = re.compile(r"""\w[\w+.-]*://[^\s"'<>]*""")  # inside a text
_PARTS = re.compile(
    r"(?s)(?P<scheme>\w[\w+.-]*://|)(?:(?P<login>[^:/]*(?::.*)?)@)?(?P<host>[^?#]*)(?:\?(?P<query>[^#]*))?(?P<fragment>#.*)?"
)
"""As SQLAlchemy reads an address, a password may hold `/`, `?` and `#`; it ends at the last `@`, as urllib reads it."""
_VALUE = re.compile(r"([\w.%-]+)=([^&;]*)|[^&;]+")
_SIGNATURE = re.compile(r"(?i)(?:.*[_-])?sig(?:nature)?")
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
    kept = _kept()
    for key, value in _leaves(plain, ""):
        if value is None or isinstance(value, bool):
            continue
        text = str(value)
        secret = named(key) or (text is value and typed(text)) or any(each in text for each in kept)
        if secret and not _HARMLESS.fullmatch(text):
            return key
    return None


def _kept() -> list[str]:
    """The secrets of the environment, by the names of its variables; the path of a file is none."""
    values = [os.environ[name] for name in os.environ if named(name)]
    return [value for value in values if len(value) >= _SHORTEST and not os.path.exists(value)]  # noqa: PTH110  # any text


def _leaves(node: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        for name, inner in node.items():
            yield from _leaves(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list):
        for inner in node:
            yield from _leaves(inner, key)
    else:
        yield key, node


@functools.lru_cache(maxsize=10_000)  # each config of a sweep has the same texts, but for a few
def typed(override: str) -> bool:
    """Whether an override, or another text, has a secret in it: by its form, in an address, or behind its name."""
    if _TOKEN.search(override) or any(named(match[1]) for match in _ASSIGNED.finditer(override)):
        return True
    addresses = _ADDRESS.findall(override)
    return any(map(_has_login, [override, *addresses] if _ADDRESS.match(override) else addresses))


def _has_login(address: str) -> bool:
    """Whether *address* has a password, or a token in the place of the user or in its query."""
    parts = _PARTS.fullmatch(address)
    assert parts
    user, _, password = (parts["login"] or "").partition(":")
    for query in _VALUE.finditer(parts["query"] or ""):
        name = query[1] or ""
        if (named(f"_{name}") or _SIGNATURE.fullmatch(name)) and not _HARMLESS.fullmatch(query[2]):
            return True
    return bool(password or (user and parts["scheme"].startswith("http")))


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


def without_login(address: str) -> str:
    """*address* as it may be shown and stored: without user and password, and without the values of its query."""
    return _rebuilt(address, "")


def _rebuilt(address: str, login: str) -> str:
    """*address* with *login* in the place of its own; `#` begins a part of MLflow's pages, or else what is left out."""
    parts = _PARTS.fullmatch(address)
    assert parts
    query = parts["query"] and "?" + _VALUE.sub(lambda match: f"{match[1] or ''}=…", parts["query"])
    fragment = parts["fragment"] if (parts["fragment"] or "").startswith("#/") else None
    return "".join(filter(None, (parts["scheme"], parts["login"] and login, parts["host"], query, fragment)))


def masked(name: str, value: str) -> str:
    """*value* of the variable *name* as it may be shown."""
    return "set, not shown" if named(name) else without_login(hide(value))


def hide(text: str) -> str:
    """*text*, such as a difference of files, with `…` in the place of what looks like a secret."""
    for pattern in (_QUOTED, _LINE, _SHOUTED):
        text = pattern.sub(_without_value, text)
    text = _TOKEN.sub("…", _BEARER.sub(r"\1\2…", text))
    return _ADDRESS.sub(lambda match: _rebuilt(match[0], "…@"), text)


def _without_value(match: re.Match[str]) -> str:
    return f"{match[1]}{match[2]}…" if named(match[1]) else match[0]
