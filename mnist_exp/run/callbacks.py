"""The callbacks that come with the package: a metric, and what other programs read, each with its extra."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, final

import torch

from mnist_exp.disk.files import atomic_write
from mnist_exp.disk.layout import State
from mnist_exp.engine.events import Callback, EpochEnd, LaneEnd
from mnist_exp.errors import ConfigError
from mnist_exp.models import exporting

if TYPE_CHECKING:
    from mnist_exp.run.session import Run


@final
class MacroF1(Callback):
    """`<split>/macro_f1`, the mean over the classes of F1, and with `recall` each class's `<split>/recall_<class>`.

    Macro F1 counts each class alike, however many images it has; one that neither occurs nor is answered is left out.

    Args:
        split: `val` or `test`; nothing is measured where it has no images.
        recall: Whether to add the share of each class's images that is right.
    """

    def __init__(self, run: "Run", split: Literal["val", "test"] = "val", recall: bool = False) -> None:
        self.run, self.split, self.recall = run, split, recall

    def measure(self, event: EpochEnd) -> Mapping[str, float]:
        if self.split not in event.answers:
            return {}
        true, answers = self.run.labels[self.split], event.answers[self.split]
        names = self.run.classes
        right, occurs, answered = (
            labels.bincount(minlength=len(names)) for labels in (true[true == answers], true, answers)
        )
        total = occurs + answered
        metrics = {f"{self.split}/macro_f1": float((2 * right / total)[total > 0].mean())}
        for label in occurs.nonzero().flatten().tolist() if self.recall else ():
            name = re.sub(r"[^\w.-]", "_", names[label])
            metrics[f"{self.split}/recall_{name}"] = float(right[label] / occurs[label])
        return metrics


@final
class TensorBoard(Callback):
    """Event files with the metrics of each epoch in the run's folder: `tensorboard --logdir outputs`.

    Raises:
        ConfigError: the extra is missing.
    """

    def __init__(self, run: "Run") -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise _lacks("tensorboard", "tensorboard") from error
        # Those of epochs that a killed attempt wrote, and that are trained again, are hidden.
        self.writer = SummaryWriter(str(run.folder / "tensorboard"), purge_step=run.ledger.epoch + 1)

    def on_epoch(self, event: EpochEnd) -> None:
        for key, value in event.metrics.items():
            self.writer.add_scalar(key, value, event.epoch, event.time_ms / 1000)
        self.writer.flush()

    def on_end(self, event: LaneEnd) -> None:
        self.writer.close()


@final
class ONNX(Callback):
    """`model.onnx` in the folder of a finished run: pixels (batch, *shape), 0 to 255, to probabilities (batch, class).

    Raises:
        ConfigError: the extra is missing.
    """

    def __init__(self, run: "Run") -> None:
        try:
            import onnxscript  # noqa: F401  # what torch's exporter needs
        except ImportError as error:
            raise _lacks("onnx", "onnxscript") from error
        self.run = run

    def on_end(self, event: LaneEnd) -> None:
        if event.state != State.FINISHED:
            return
        from mnist_exp.run.export import restore

        network = restore(self.run.config, self.run.folder)
        with exporting, torch.no_grad():
            program = torch.onnx.export(
                network,
                (torch.zeros(2, *network.shape),),
                dynamic_shapes=({0: torch.export.Dim.AUTO},),
                input_names=["pixels"],
                output_names=["probabilities"],
                verbose=False,
            )
        assert program
        atomic_write(self.run.folder / "model.onnx", program.model_proto.SerializeToString())


def _lacks(extra: str, package: str) -> ConfigError:
    return ConfigError(f"callbacks={extra} needs {package}.", f'Install it: pip install "mnist_exp[{extra}]"')
