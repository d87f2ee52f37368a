"""Makes the pictures of terminals in docs/images anew, from real runs, with one command:

    python docs/captures.py

It types the commands below into a bash inside tmux, in an empty folder, on the real MNIST, and writes the screen as
SVG, one of them also beside the page of its sweep: some minutes on two idle cores. Needs tmux, and what
docs/screenshots.py needs. The folder is shown as `~/digits`, and lines longer than the screen are broken between words;
nothing else is changed. If the screen shows a fault or a machine that was too busy, the program ends with an error and
keeps the earlier pictures.
"""

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import made
import platformdirs
from PIL import Image
from rich.console import CONSOLE_SVG_FORMAT, Console
from rich.padding import Padding
from rich.text import Text

HERE = Path(__file__).resolve().parent
WIDTH, HEIGHT = 100, 80  # characters
PATIENCE = 300  # seconds for a command, on a busy machine
PROMPT = "$ "
TRAIN = "python -m mnist_exp.train"
SWEEP = f"{TRAIN} -m hidden=64,128,256 lr=1e-3,3e-3 epochs=5"
FAILING = f"{TRAIN} -m optimizer=sgd hidden=64,128 lr=0.03,0.1,1000 epochs=4"
STOPPED = f"{TRAIN} -m hidden=64,128,256,512 epochs=4"
BESIDE = """<!doctype html><body style="margin: 0; display: flex; gap: 20px; align-items: flex-start; background: #fff">
<img src="{left}" style="width: 810px; margin-top: 12px">
<iframe src="{right}" style="border: 1px solid #ccc; width: 1160px; height: 930px; zoom: 0.69"></iframe>"""
UNFIT = ("not yet", "everything yet", "KeyboardInterrupt", "Traceback")  # in no picture


def main() -> None:
    """Types, waits, and writes the pictures."""
    with terminal() as screen:
        screen.type(f"{TRAIN} data=synthetic && rm -r outputs")  # creates MLflow's store, and warms the disk cache
        screen.wait(rf"Tracked in MLflow(.|\n)*\n\{PROMPT}$")
        screen.type(f"{TRAIN} hidden=256 epochs=5")
        screen.keep("terminal-train", until="Tracked in MLflow")

        screen.type(SWEEP)
        screen.keep("terminal-sweep", until="workflowType")
        (page,) = screen.home.glob("digits/outputs/sweeps/*/*/report.html")
        beside("terminal-sweep", page)

        screen.type(FAILING)
        screen.keep("terminal-sweep-running", until=r"FAILED(.|\n)*[2-4]/6 done.* running", done=False)
        screen.keep("terminal-sweep-failed", until="Report:")

        screen.type(STOPPED)
        screen.wait(r"\[1/4\]")
        screen.press("C-c")
        screen.wait(r"error: (.|\n)*\n\$ $")
        screen.type(f"{TRAIN} -m resume=last", clear=False)
        screen.keep("terminal-sweep-resumed", until="Report:")

        screen.type("MLFLOW_TRACKING_URI=http://localhost:1 python -m mnist_exp.doctor")
        screen.keep("terminal-doctor", until=r"warnings?\.")

        screen.type(f"{TRAIN} hiden=256")
        screen.wait(r"help: (.|\n)*\n\$ $")
        screen.type(f"{TRAIN} -m hidden=64,-5 lr=1e-3,nan", clear=False)
        screen.wait(r"cannot run(.|\n)*\n\$ $")
        screen.type(f"{TRAIN} optimizer=adma", clear=False)
        screen.keep("terminal-errors", until="no optimizer called")


class Screen:
    """A bash in tmux."""

    def __init__(self, folder: Path) -> None:
        self.home = folder
        self.socket = str(folder / "tmux")

    def tmux(self, *arguments: str) -> str:
        """Runs a tmux command; returns its output."""
        command = ["tmux", "-S", self.socket, "-f", os.devnull, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def press(self, *keys: str) -> None:
        """Sends keys by their names."""
        self.tmux("send-keys", *keys)

    def type(self, line: str, clear: bool = True) -> None:
        """Types *line* and Enter, by default on an empty screen."""
        if clear:
            self.press("C-l")
            time.sleep(0.5)
        self.tmux("send-keys", "-l", line)
        self.press("Enter")

    def text(self, colours: bool = False) -> str:
        """The text of the screen, with wrapped lines joined, without trailing blank lines."""
        shown = self.tmux("capture-pane", "-p", "-J", *(["-e"] if colours else [])).rstrip()
        for here, name in ((self.home, "~"), (HERE.parent, "~/mnist_exp"), (Path(sys.prefix), "~/venv")):
            shown = shown.replace(str(here), name)
        return shown + " " if shown.endswith(PROMPT.strip()) else shown

    def wait(self, pattern: str) -> None:
        """Returns once the screen shows *pattern*."""
        deadline = time.monotonic() + PATIENCE
        while not re.search(pattern, self.text()):
            assert time.monotonic() < deadline, f"{pattern} did not come:\n{self.text()}"
            time.sleep(0.1)

    def keep(self, name: str, until: str, done: bool = True) -> None:
        """Writes docs/images/*name*.svg once the screen shows *until*, and with *done* the prompt after it."""
        self.wait(rf"{until}(.|\n)*\n\{PROMPT}$" if done else until)
        faults = [word for word in UNFIT if word in self.text()]
        assert not faults, f"{name} says {faults}: run it again on a machine that does nothing else, or mend it"
        shown = self.text(colours=True)
        if done:
            shown = shown[: shown.rindex("\n")]
        svg(shown, HERE / "images" / f"{name}.svg")


def svg(ansi: str, path: Path) -> None:
    """Writes coloured text as a picture that loads no fonts."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    for line in map(Text.from_ansi, ansi.splitlines()):
        line.rstrip()
        indent = len(line.plain) - len(line.plain.lstrip())
        console.print(Padding(line[indent:] or " ", (0, 0, 0, indent), expand=False))
    console.print()  # else the last line's underscores are cut off
    plain = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    path.write_text(console.export_svg(title="mnist_exp", code_format=plain, unique_id=path.stem), encoding="utf-8")
    made.note(path, "captures.py")


def beside(name: str, page: Path) -> None:
    """Writes docs/images/sweep.png: the terminal *name* beside the report *page*, as a visitor's first look."""
    from browser import chromium  # the extras of docs/screenshots.py, which the test that reads UNFIT does without
    from screenshots import save

    left = HERE / "images" / f"{name}.svg"
    both = page.with_name("both.html")
    both.write_text(BESIDE.format(left=left.as_uri(), right=page.as_uri()), encoding="utf-8")
    with chromium(1640, 790) as browser:
        browser.get(both.as_uri())
        time.sleep(10)  # the page is drawn
        save(Image.open(io.BytesIO(browser.get_screenshot_as_png())), "sweep", "captures.py")


@contextlib.contextmanager
def terminal() -> Iterator[Screen]:
    """A bash in an empty folder and a minimal environment, with this package and the images."""
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        (home / "digits").mkdir()
        (home / ".cache").symlink_to(platformdirs.user_cache_dir())
        environment = {
            "HOME": str(home),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYTHONPATH": str(HERE.parent),
            "LANG": "C.UTF-8",
            "HISTFILE": os.devnull,
            "PS1": PROMPT,
        }
        screen = Screen(home)
        bash = shlex.join(["env", "-i", *(f"{k}={v}" for k, v in environment.items())])
        bash += f" TERM=$TERM {shutil.which('bash')} --norc --noprofile"
        size = ["-x", str(WIDTH), "-y", str(HEIGHT)]
        screen.tmux("new-session", "-d", *size, "-c", str(home / "digits"), bash)
        try:
            screen.wait(rf"\{PROMPT}$")
            yield screen
        finally:
            screen.tmux("kill-server")


if __name__ == "__main__":
    main()
