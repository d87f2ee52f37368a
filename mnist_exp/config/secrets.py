"""What must not get into files: the one owner of what counts as a secret, and of every redaction.

Everything that is configured is written down, many times: by Hydra, into the run's folder, into MLflow. So a secret is
refused before anything is written. It belongs in the environment; a config may hold a reference to it.
"""

import functools
import os
import re
from typing import Any
from urllib.parse import unquote_plus

from mnist_exp.config.rules import leaves
from mnist_exp.errors import ConfigError

_MEASURE = r"(?:dims?|sizes?|len|length|count|heads|dropout|rate)"  # token_dim is a number of a network
_WHOSE = r"(?:db|user|root|admin|my|ssh)"
_NAME = re.compile(
    r"(?i)(?:[_-]key(?![a-z])|(?:api|access|account|private|shared|ssh|deploy|signing|encryption)[_-]?keys?(?![a-z])"
    r"|token(?![a-z])|(?<![a-z])(?<!max[_-])(?<!min[_-])(?<!num[_-])(?<!new[_-])(?<!\bn[_-])tokens(?![a-z])"
    r"|secret|password|passwd|passphrase|passcode|pswd|credential|authorization|connection[_-]?string"
    rf"|(?<![a-z]){_WHOSE}?(?:pwd|pw|pass)(?![a-z])|(?<![a-z])(?:pat|jwt|o?auth|bearer|cookie|creds?)(?![a-z]))"
    rf"(?![\w-]*[_-]{_MEASURE}(?![\w-]))"
)
_PEM = r"PRIVATE KEY(?: BLOCK)?-----"
_TOKEN = re.compile(  # as their issuers make them: GitHub, Hugging Face, AWS, Slack, OpenAI, Stripe, GitLab, …
    r"(?<![A-Za-z0-9])(?:gh[opusr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|hf_[A-Za-z0-9]{20,}|A(?:KIA|SIA)[A-Z0-9]{16}"
    r"|xox[a-z]-[\w-]{10,}|sk-(?=[\w-]*\d)[\w-]{20,}|[sr]k_(?:live|test)_\w{16,}|glpat-[\w-]{16,}|dapi[0-9a-f]{32}"
    r"|AIza[\w-]{35}|npm_[A-Za-z0-9]{30,}|pypi-[\w-]{50,}|eyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?"
    r"|hv[sbr]\.[\w-]{20,}|dckr_pat_[\w-]{20,}|ya29\.[\w-]{20,}|SG\.[\w-]{16,}\.[\w-]{16,}|nvapi-[\w-]{20,}"
    rf"|-----BEGIN [A-Z ]*{_PEM}(?:(?s:(?:(?!-----BEGIN).)*?)-----END [A-Z ]*{_PEM}"
    r"|(?:[\s\\+-]*n?[A-Za-z0-9+/=]{16,})*))"
)
_LOGIN = r"[^\s/@:?#\"'<>]*:[^\n]{0,300}@"  # in a message, a password may have blanks and quotes
_PORT = r"\d{1,5}(?:[/?#\s\"'<>]|$)"
_ADDRESS = re.compile(  # inside a text; `http://host:5000 and me@host` is no login
    rf"""(?<!\w)(?:(?:https?|wss?)://(?:(?![^\s/@:]*:{_PORT}){_LOGIN})?|\w[\w+.-]{{0,40}}://(?:{_LOGIN})?)[^\s"'<>]*"""
)
_PARTS = re.compile(
    r"(?s)(?P<scheme>\w[\w+.-]*://|)(?:(?P<login>[^:/]*(?::.*)?)@)?(?P<host>[^?#]*)(?:\?(?P<query>[^#]*))?(?P<fragment>#.*)?"
)
"""As SQLAlchemy reads an address, a password may hold `/`, `?` and `#`; it ends at the last `@`, as urllib reads it."""
_VALUE = re.compile(r"([\w.%-]+)=([^&;]*)|[^&;]+")
_PARAMETER = re.compile(r"(;[\w.%-]+=)[^;/]*")  # of a path
_SIGNATURE = re.compile(r"(?i)(?:.*[_-])?sig(?:nature)?")
_STOP = r"(?![^\s,;&)}\]\"'])"
_NOTHING = rf"(?:true|false|null|none){_STOP}"
_REFERENCE = rf"\$\{{oc\.env:\w+(?:,null)?\}}{_STOP}"
_HARMLESS = re.compile(f"(?:{_REFERENCE})?")
_ASSIGNED = re.compile(rf"""(?i)(?<![\w.-])([\w.-]+)["']?\s*[:=]\s*["']?(?!{_NOTHING}|{_REFERENCE})(?=[^\s"'])""")
_SHORTEST = 8  # characters; a shorter value of the environment may stand in a config by chance

_TYPE = r"(?:\w+\.)?(?:str|int|float|bool|bytes|Any|Optional\[\w+\])(?:[ ]*\|[ ]*None)?"
_CODE = r"(?:[\w.]+(?:\([^\n()]*\)|\[[^\n\]]*\])|[\w.]*[(\[{][ \t]*(?:#.*)?$)"  # a call or an element: whence it comes
_END = r"[ \t]*(?:[,:]?[ \t]*(?:#.*)?$)"
_STRING = (
    r"[fFrRbBuU]{0,2}(?:\"\"\"(?s:.*?)(?:\"\"\"|\Z)|\x27\x27\x27(?s:.*?)(?:\x27\x27\x27|\Z)"
    r"|\"(?:\\.|[^\"\\\n])+\"?|\x27(?:\\.|[^\x27\\\n])+\x27?|(?P<escaped>\\+[\"\x27]).*?(?:(?P=escaped)|$))"
)
_KEYWORD = r"(?:return|raise|pass|continue|break|yield|assert|del|await)(?=[ \t]|$)"

# A name, what stands between it and the value, and the value: the rest of a line that begins with the name, as in YAML
# or an .ini file, behind the sign that a difference of files puts before it; and anywhere a string or a word.
_FORMS = (
    (
        re.compile(
            r"(?im)^[-+ ]?[ \t]*(?:- +)*(?:export +|set +)?[\"']?(?P<name>[\w.-]+)[\"']?(?::[ \t]+|[ \t]+=[ \t]+)"
        ),
        re.compile(
            rf"(?im)(?!(?:true|false|null|none|{_REFERENCE}|{_TYPE}|{_CODE}"
            rf"|[\w.]+[(\[].*[)\]]){_END}|{_TYPE}[ \t]*=|[frbu]{{0,2}}[\"']|…)"
            r"\S.*?(?=[ \t]+#|[ \t]*$)"
        ),
    ),
    (
        re.compile(
            rf"(?i)(?<![\w.-])(?P<name>[\w.-]+)\\*[\"']?[ \t]*(?::[ \t]*{_TYPE}[ \t]*(?==))?(?:=>|[:=]=?)[ \t]*"
        ),
        re.compile(
            rf"(?im){_STRING}|(?!{_NOTHING}|{_REFERENCE}|{_KEYWORD}|…|{_TYPE}(?=[ \t,)=|:\]]|$)|{_CODE})"
            r"(?:(?:bearer|basic|digest|token|apikey|negotiate)[ \t]+)?(?![\"'])\S+"
        ),
    ),
    (
        re.compile(r"(?<![\w-])--(?P<name>[\w.-]+)(?:[ \t]+|[\"'],[ \t]*)"),
        re.compile(rf"(?im){_STRING}|[^\s\"'-]\S*"),
    ),
)
_REST = r"[,;)\]}\"']*"
_VARIABLE = re.compile(  # of a shell
    rf"(?:\$(?:env:)?([A-Z][A-Z0-9_]*)|\$\{{([A-Z][A-Z0-9_]*)\}}|%([A-Z][A-Z0-9_]*)%){_REST}"
)
_WORD = re.compile(rf"(?:[A-Za-z_]\w*\.)*(\w+){_REST}")
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
    for key, value in leaves("", plain):
        if value is None or isinstance(value, bool):
            continue
        text = str(value)
        secret = named(key) or (text is value and typed(text)) or kept.search(text)
        if secret and not _HARMLESS.fullmatch(text):
            return key
    return None


def _kept() -> re.Pattern[str]:
    """Finds the secrets of the environment, by the names of its variables; the path of a file is none.

    One of letters alone is found as a word: a password `postgres` is none in `postgresql://`.
    """
    values = [os.environ.get(name, "") for name in os.environ if named(name)]  # a thread may remove one
    secrets = [value for value in values if len(value) >= _SHORTEST and not os.path.exists(value)]  # noqa: PTH110  # any text
    patterns = [
        rf"(?<!\w){each}(?!\w)" if each.isalpha() else re.escape(each)
        for each in sorted(secrets, key=len, reverse=True)
    ]
    return re.compile("|".join(patterns) or "(?!)")


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
        if any(named(match[1]) for match in _ASSIGNED.finditer(unquote_plus(unquote_plus(query[2] or "")))):
            return True  # such as the whole connection string of ODBC
    return bool(password or (user and parts["scheme"].startswith("http")))


def refusal(key: str) -> ConfigError:
    """The error for a secret under *key*: a config is written to files."""
    what, way_out = "looks like a secret", "Leave it in the environment, and read it there, where it is used."
    if key == "tracking.uri":
        what = "holds a password"
        way_out = "Set MLFLOW_TRACKING_URI in the environment instead, and leave tracking.uri out."
    return ConfigError(f"{key} {what}, and a run writes its config to files and to MLflow.", way_out)


def without_login(address: str) -> str:
    """*address* as it may be shown and stored: without user and password, and without the values of its query."""
    return _rebuilt(address, "")


def _rebuilt(address: str, login: str) -> str:
    """*address* with *login* in the place of its own; `#` begins a part of MLflow's pages, or else what is left out."""
    parts = _PARTS.fullmatch(address)
    assert parts
    host = _PARAMETER.sub(r"\1…", parts["host"])
    query = parts["query"] and "?" + _VALUE.sub(lambda match: f"{match[1] or ''}=…", parts["query"])
    fragment = parts["fragment"] if (parts["fragment"] or "").startswith("#/") else None
    return "".join(filter(None, (parts["scheme"], parts["login"] and login, host, query, fragment)))


def masked(name: str, value: str) -> str:
    """*value* of the variable *name* as it may be shown."""
    return "set, not shown" if named(name) else without_login(hide(value))


def hide(text: str) -> str:
    """*text*, such as a difference of files, with `…` in the place of what looks like a secret.

    So is the value of an environment variable with such a name, wherever it stands. Of a name like `password` that
    stands before a bare word in code, such as a variable's, that word is hidden, too, unless it is only a reference:
    the same name (`token=token`, `token=self.token`), or a shell's variable (`password=$PASSWORD`).
    """
    text = _kept().sub("…", text) if len(text) >= _SHORTEST else text
    text = _ADDRESS.sub(lambda match: _rebuilt(match[0], "…@"), _TOKEN.sub("…", text))
    for before, value in _FORMS:
        text = _without_values(before, value, text)
    return _BEARER.sub(r"\1\2…", text)


def _without_values(before: re.Pattern[str], value: re.Pattern[str], text: str) -> str:
    """*text* with `…` in the place of each *value* that follows what matches *before*, with the name of a secret."""
    kept, end = [], 0
    for match in before.finditer(text):
        secret = value.match(text, match.end()) if match.start() >= end and named(match["name"]) else None
        if secret and not _refers(secret[0], match):
            kept += [text[end : match.end()], "…"]
            end = secret.end()
    return "".join([*kept, text[end:]])


def _refers(word: str, name: re.Match[str]) -> bool:
    """Whether *word*, which follows what matched *name*, only says where the secret is.

    A variable of a shell has the name of a secret itself: `$ecret` is a password. And `password: password` may be one.
    """
    if variable := _VARIABLE.fullmatch(word):
        return named(variable[variable.lastindex or 0])
    plain = _WORD.fullmatch(word) if name[0].endswith("=") else None
    return plain is not None and plain[1] == name["name"].rpartition(".")[2]
