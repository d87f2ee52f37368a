"""How commands read what people type: `key=value` words, further names, and flags, in any order."""

import argparse
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from mnist_exp.console import completion
from mnist_exp.console.completion import Offers


@final
@dataclass(frozen=True)
class Typed:
    """What was typed."""

    values: dict[str, str]
    """Each known key, with its default where it was not typed."""
    names: list[str]
    """The words that are no `key=value`, in order."""
    flags: frozenset[str]
    """The switches that were set, without their dashes."""


def read(
    arguments: Sequence[str],
    module: str,
    about: str,
    keys: Mapping[str, tuple[str, str]],
    examples: str,
    names: tuple[str, str] = ("", ""),
    flags: Mapping[str, str] | None = None,
    offers: Offers | None = None,
) -> Typed:
    """Reads the *arguments* of `python -m mnist_exp.<module>`.

    Args:
        about: What the command does, in a sentence.
        keys: Key → its default and what it means.
        examples: Whole command lines and exit codes, for `--help`.
        names: What further words are called, and what they mean; empty: there are none.
        flags: Switches, without dashes → what they mean.
        offers: What tab completion has for keys, and for names under the empty key.

    Raises:
        SystemExit: usage (2), `--help` or tab completion (0).
    """
    if arguments[:1] == ["-sc"]:
        further = (offers or {}).get("", list)
        words_and_flags = {"": lambda: [*(f"--{flag}" for flag in flags or {}), *further()]}
        completion.serve(arguments, {**dict.fromkeys(keys, list), **(offers or {}), **words_and_flags})
    lines = [f"  {key}={default:<{20 - len(key)}} {meaning}" for key, (default, meaning) in keys.items()]
    table = ["", "keys, with their defaults", *lines] if keys else []
    words = [*filter(None, names[:1]), *(["[key=value …]"] if keys else [])]
    parser = argparse.ArgumentParser(
        prog=f"python -m mnist_exp.{module}",
        usage=" ".join(["%(prog)s", *words, "[options]"]),
        description="\n".join([about, *table]),
        epilog="examples\n" + examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", nargs="*", help=names[1] or argparse.SUPPRESS, metavar=names[0] or "key=value")
    for flag, meaning in (flags or {}).items():
        parser.add_argument(f"--{flag}", action="store_true", help=meaning)
    found = parser.parse_intermixed_args(list(arguments))
    values, others = {key: default for key, (default, _) in keys.items()}, []
    for word in found.words:
        key, equals, value = word.partition("=")
        if equals and key in keys:
            values[key] = value
        elif names[0] and (not equals or Path(word).exists()):  # a file may be called a=b.png
            others.append(word)
        else:
            near = difflib.get_close_matches(key, keys, n=1)
            guess = f"did you mean {near[0]}={value or '…'}? " if near else ""
            known = f"keys: {', '.join(keys)}" if keys else "there is nothing to set"
            parser.error(f"{word!r} is not known; {guess}{known} (--help shows examples)")
    return Typed(values, others, frozenset(flag for flag in flags or {} if getattr(found, flag)))
