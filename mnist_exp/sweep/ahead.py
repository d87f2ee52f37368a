"""What the end of a sweep needs, loaded beside its runs.

To import torch's exporter and what draws the page takes two seconds, a tenth of a small sweep.
"""

import contextlib
import functools
import threading

from torch import nn

from mnist_exp.models import Classifier, export


@functools.cache
def loading() -> threading.Thread:
    """Begins to load it in the background, once; whoever exports joins first, for torch exports one at a time.

    A process that ends earlier waits for it: torch aborts one that leaves amid an export.
    """
    thread = threading.Thread(target=_load)
    thread.start()
    return thread


def _load() -> None:
    # Python refuses some imports when it ends; any other failure meets whoever needs them, and is told there.
    with contextlib.suppress(Exception):
        import mnist_exp.report.page  # noqa: F401  # matplotlib

        export(Classifier(nn.Flatten(), mean=0.0, std=1.0))
