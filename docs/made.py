"""Keeps in docs/images/made.json when, by which program and with which version a picture was made.

tests/project/test_pictures.py has docs/README.md name those that are older than the version.
"""

import json
import time
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
RECORD = HERE / "images" / "made.json"


def note(picture: Path, program: str) -> None:
    """Records that *program*, a file of docs/, has made *picture* now."""
    made = json.loads(RECORD.read_text(encoding="utf-8"))
    made[picture.name] = {"by": f"docs/{program}", "on": time.strftime("%Y-%m-%d", time.gmtime()), "version": version()}
    RECORD.write_text(json.dumps(made, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def version() -> str:
    """The project's."""
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(project["version"])
