"""Tab completion in bash for the commands that are not Hydra's, installed as Hydra's is: `-sc install=bash`.

`mnist-exp` itself is completed by Hydra. The shell calls a script with `-sc query=bash` at each press of the key,
so nothing heavy may be loaded on the way here.
"""

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

Offers = Mapping[str, Callable[[], Iterable[str]]]
"""What may be typed: key → its likely values; the empty key → words that are no `key=value`."""


def serve(arguments: Sequence[str], offers: Offers) -> NoReturn:
    """Does what `-sc …` asks for, and leaves; bash completes files where nothing is offered.

    Args:
        arguments: All that follows the script's name, from `-sc` on.

    Raises:
        SystemExit: always; 2 for another shell, or where there is no script to complete.
    """
    script, asked = Path(sys.argv[0]).name, "".join(arguments[1:2])
    if script.endswith(".py"):
        sys.stderr.write("error: python -m has no tab completion; the console scripts (pip install -e .) have.\n")
        sys.exit(2)
    if asked == "query=bash":
        line = os.environ["COMP_LINE"][: int(os.environ["COMP_POINT"])]
        lines = replies(line, arguments[3], offers)
    elif asked == "install=bash":
        lines = [f"complete -o nospace -o default -C '{script} -sc query=bash' {script}"]
    elif asked == "uninstall=bash":
        lines = [f"complete -r {script}"]
    else:
        sys.stderr.write(f"error: {asked or '-sc'!r} is not known; there are install=bash and uninstall=bash.\n")
        sys.exit(2)
    sys.stdout.writelines(f"{line}\n" for line in lines)
    sys.exit(0)


def replies(line: str, part: str, offers: Offers) -> list[str]:
    """What the last word of *line* may become.

    Args:
        part: The end of that word which the shell replaces: it breaks words at = and :, unless told otherwise.
    """
    word = line.rpartition(" ")[2]
    key, equals, _ = word.partition("=")
    if equals:
        whole = [f"{key}={value} " for value in offers[key]()] if key in offers else []
    else:
        whole = [*(f"{name}=" for name in offers if name), *(f"{name} " for name in offers.get("", list)())]
    return [found[len(word) - len(part) :] for found in whole if found.startswith(word)]
