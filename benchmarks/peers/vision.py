"""torchvision for the peers, also if its compiled part does not fit the installed torch.

A torchvision built for CUDA beside a torch built for the CPU cannot be imported: its operators are missing.
Data sets and transforms need none of them, so the two that are asked for at import are declared, not defined.
"""

import sys
from typing import Any

import torch

_declared: list[Any] = []  # garbage collection of a library would remove its operators


def prepare() -> bool:
    """Makes `import torchvision` work; returns whether missing operators had to be declared."""
    try:
        import torchvision
    except RuntimeError:
        for name in [m for m in sys.modules if m.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _declared.append(library)
        import torchvision  # noqa: F401
    return bool(_declared)


def transform() -> Any:
    """ToTensor and Normalize, as in every tutorial."""
    prepare()
    from torchvision import transforms

    return transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])
