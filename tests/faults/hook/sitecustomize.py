"""Python imports this at its start where `PYTHONPATH` names this folder: a command line with a fault in it.

`MNIST_EXP_FAULT` is JSON: which call of `nth.Nth` is hit, and how.
"""

import json
import os
from pathlib import Path

if "MNIST_EXP_FAULT" in os.environ:
    from nth import Nth  # lies beside this file's folder, which PYTHONPATH names, too

    settings = json.loads(os.environ["MNIST_EXP_FAULT"])
    Nth(Path(settings.pop("root")), **settings).__enter__()
