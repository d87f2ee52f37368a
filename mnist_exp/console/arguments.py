"""How commands read what people type: argparse's options, `key=value` and names, in any order."""

import argparse
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, final

from mnist_exp.config.guesses import closest

Offer = Callable[[], Iterable[str]]
"""Likely values, for tab completion."""


@final
@dataclass(frozen=True)
class Key:
    """What a `key=value` sets."""

    default: str
    help: str
    values: Offer = list


def version() -> str:
    """Name and version of this package."""
    try:
        return f"mnist_exp {metadata.version('mnist_exp')}"
    except metadata.PackageNotFoundError:
        return "mnist_exp, not installed"


class Parser(argparse.ArgumentParser):
    """The parser of `python -m mnist_exp.<module>`, with tab completion in a shell that asks for it.

    Args:
        about: What the command does, in a sentence.
        epilog: Whole command lines and exit codes, for `--help`.
    """

    def __init__(self, module: str, about: str, epilog: str) -> None:
        form = argparse.RawDescriptionHelpFormatter
        super().__init__(f"python -m mnist_exp.{module}", description=about, epilog=epilog, formatter_class=form)
        self.keys: Mapping[str, Key] = {}
        self.takes_names = False
        self.add_argument("--version", action="version", version=version())

    def add_overrides(self, keys: Mapping[str, Key], metavar: str = "", help: str = "", names: Offer = list) -> None:
        """Takes `key=value`, and names if they have a *metavar*.

        Args:
            metavar, help: What names are called, and what they mean.
            names: What tab completion offers for them.
        """
        self.keys, self.takes_names = keys, bool(metavar)
        self.usage = f"%(prog)s {metavar} [key=value …] [options]".replace("  ", " ")
        lines = [f"  {name}={key.default:<{20 - len(name)}} {key.help}" for name, key in keys.items()]
        if keys:
            self.description = "\n".join([self.description or "", "", "keys, with their defaults", *lines])
        typed = self.add_argument("typed", nargs="*", metavar=metavar or "key=value", help=help or argparse.SUPPRESS)

        def complete(prefix: str, **context: object) -> list[str]:
            name, equals, _ = prefix.partition("=")
            if equals:
                return [f"{name}={value}" for value in keys[name].values()] if name in keys else []
            return [*(f"{other}=" for other in keys), *names()]

        typed.completer = complete  # type: ignore[attr-defined]  # argcomplete looks for it

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse. When completing, flags come first, because argcomplete knows one series of arguments only."""
        if self.keys and "_ARGCOMPLETE" in os.environ:
            args = sorted(args, key=lambda word: not word.startswith("-"))
        return super().parse_known_args(args, namespace)

    def read(self, typed: Sequence[str]) -> argparse.Namespace:
        """The options; also each key's value, under its name, and the names as `names`.

        Raises:
            SystemExit: usage (2), `--help` or tab completion (0).
        """
        if "_ARGCOMPLETE" in os.environ:
            import argcomplete

            argcomplete.autocomplete(self)
        options = self.parse_intermixed_args(typed)
        options.names = []
        for name, key in self.keys.items():
            setattr(options, name, key.default)
        given: set[str] = set()
        for word in getattr(options, "typed", []):
            name, equals, value = word.partition("=")
            if equals and name in self.keys:
                if name in given:
                    self.error(f"{name} is set more than once")
                given.add(name)
                setattr(options, name, value)
            elif self.takes_names and (not equals or Path(word).exists()):  # a file may be called a=b.png
                options.names.append(word)
            else:
                near = closest(name, self.keys)
                guess = f"did you mean {near}={value or '…'}? " if near else ""
                self.error(f"{word!r} is not known; {guess}keys: {', '.join(self.keys)} (--help shows examples)")
        return options
