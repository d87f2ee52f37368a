"""What must not get into files: passwords in addresses, and values that are called a key, a token or a secret.

Everything that is configured is written down, many times: by Hydra, into the run's folder, into MLflow. So a secret is
refused where it is typed; its place is the environment.
"""

import re
from typing import Any

_ADDRESS = re.compile(r"https?://[^/\s@]+@|\w://[^/\s:@]*:[^/\s@]+@")
_NAME = r"(?:[_-]key|apikey|token|secret|password)"
_ASSIGNED = re.compile(rf"""(?i:{_NAME}["']?\s*[:=]\s*["']?)(?!(?:true|false|null|none)\b)[^\s"'\d]""", re.IGNORECASE)
_QUOTED = re.compile(rf"""(?i:({_NAME}["']?\s*[:=]\s*))(["'])[^"'\n]+\2""")
_BARE = re.compile(r"(?m)([A-Z0-9_]*(?:_KEY|TOKEN|SECRET|PASSWORD)\s*=\s*)[^\s\"'(]+$")


def is_secret(key: str, value: Any) -> bool:
    """Whether *value* must not be written down: an address with a password, or a text under such a name."""
    if not isinstance(value, str) or not value:
        return False
    return bool(_ADDRESS.search(value) or re.search(rf"(?i){_NAME}$", key))


def has_secret(typed: str) -> bool:
    """Whether an argument of the command line sets one."""
    return bool(_ADDRESS.search(typed) or _ASSIGNED.search(typed))


def hide(text: str) -> str:
    """*text*, such as a difference of files, with `…` in the place of what looks like a secret."""
    text = _BARE.sub(r"\1…", _QUOTED.sub(r"\1\2…\2", text))
    return re.sub(r"(\w://)[^/\s@]*:?[^/\s@]+@", r"\1…@", text)
