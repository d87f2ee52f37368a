"""The page of a sweep while it runs: written anew from the files on disk, and renewed where it is looked at.

A process of its own does that, at low priority: drawing takes seconds, in which the driver has to hand out jobs, and a
fault there, or a lack of memory, is none of the sweep.
"""

import contextlib
import logging
import math
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import IO, final

from mnist_exp import system
from mnist_exp.config import stores
from mnist_exp.console.terminal import offer, shown
from mnist_exp.disk.files import atomic_write, tidy
from mnist_exp.disk.layout import SweepFolder
from mnist_exp.errors import first_line

log = logging.getLogger(__name__)

FIRST = 5.0  # seconds after which a sweep is long enough for it
SHARE = 0.02  # of the machine's processor time, at most, for pages after the first
SHORTEST = 5.0  # seconds between two

MARK = re.compile(r"<!-- running -->.*?<!-- /running -->\n?", re.DOTALL)
BANNER = '<p class="notice" role="status">This sweep is running, and this page follows it.</p>'
# Before the page's security policy, which is for what follows it. A reload keeps the place; who reads is not disturbed.
RENEWAL = """\
<script>(() => {
  let touched = 0;
  const touch = () => { touched = Date.now() };
  for (const kind of ["pointerdown", "keydown", "wheel"]) addEventListener(kind, touch, {passive: true});
  setInterval(() => document.hidden || Date.now() - touched < SECONDS * 1000 || location.reload(), SECONDS * 1000);
})()</script><noscript><meta http-equiv="refresh" content="SECONDS"></noscript>"""


@final
class Renewer:
    """The driver's handle on the process that writes the page of the sweep in *folder*, between `begin` and `end`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.timer: threading.Timer | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.output: IO[str] | None = None

    def begin(self) -> None:
        """The first run is about to begin: the process starts in a while."""
        self.timer = threading.Timer(FIRST, self.start)
        self.timer.daemon = True
        self.timer.start()

    def start(self) -> None:
        """Starts it, and says where the page will be."""
        try:
            self.output = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115  # closed by `end`
            self.process = system.start_module(
                "sweep.live",
                str(self.folder.resolve()),
                environment={"OMP_NUM_THREADS": "1"},
                stdout=self.output,
                stderr=subprocess.DEVNULL,
                cwd=stores.started_in(),
            )
        except OSError as error:
            log.warning("The page cannot be written while the sweep runs: %s", error)
            return
        offer("To follow it in a browser, in a moment:", shown(SweepFolder(self.folder).page))

    def end(self) -> None:
        """Ends it, in the middle of a page if need be, and logs its faults. The page is as it was last."""
        if self.timer:
            self.timer.cancel()
            self.timer.join()
        if self.process and self.output:
            with self.process:  # at its end it is waited for
                self.process.kill()
            self.process = None
            tidy(self.folder, *SweepFolder.written)
            tidy(SweepFolder(self.folder).figures, "*")
            settle(self.folder)
            with self.output:
                self.output.seek(0)
                for line in dict.fromkeys(self.output):
                    log.warning(line.rstrip())


def marked(text: str, seconds: float) -> str:
    """*text* of a page that looks for a newer one every so many *seconds*, and says so."""
    renewal = RENEWAL.replace("SECONDS", str(math.ceil(seconds)))
    text = text.replace("<head>\n", f"<head>\n<!-- running -->{renewal}<!-- /running -->\n", 1)
    return text.replace("<body>\n", f"<body>\n<!-- running -->{BANNER}<!-- /running -->\n", 1)


def settle(folder: Path) -> None:
    """Makes the page of the sweep in *folder* one that is not renewed, if there is one."""
    with contextlib.suppress(OSError, ValueError):  # it may be no text
        path = SweepFolder(folder).page
        text = path.read_text(encoding="utf-8")
        if MARK.search(text):
            atomic_write(path, MARK.sub("", text).encode())


def renew(folder: Path, seconds: float) -> None:
    """Writes the page of the sweep in *folder*, which looks for a newer one every so many *seconds*.

    Raises:
        ExperimentError, OSError: as `board.compare` and `page.write`.
    """
    from mnist_exp.report import board, page
    from mnist_exp.results import names

    path = SweepFolder(folder).page
    draft = page.write(board.compare(names.resolve(folder)), path.with_name(f".{path.name}.tmp-draft"))
    text = draft.read_text(encoding="utf-8")
    system.unlink(draft)
    atomic_write(path, marked(text, seconds).encode())


def pause(busy: float, cores: int) -> float:
    """Seconds until the next page, where the last one took *busy* seconds of one of *cores*."""
    return max(SHORTEST, busy / (SHARE * cores))


def main() -> None:
    """The process: writes the page again and again until the driver ends."""
    folder, over = Path(sys.argv[1]), threading.Event()

    def follow() -> None:
        os.read(0, 1)
        over.set()

    threading.Thread(target=follow, daemon=True).start()
    system.step_back()
    rest = SHORTEST
    while not over.is_set():
        busy = time.process_time()
        try:
            renew(folder, rest)
        except Exception as error:  # the next one may succeed
            print(f"The page could not be renewed: {first_line(error)}", flush=True)  # noqa: T201  # the driver logs it
        rest = pause(time.process_time() - busy, system.cores())
        over.wait(rest)
    settle(folder)


if __name__ == "__main__":
    main()
