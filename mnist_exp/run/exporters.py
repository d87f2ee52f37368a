"""Callbacks that write what other programs read: TensorBoard's event files, an ONNX model. Each needs its extra."""

from typing import TYPE_CHECKING, final

import torch

from mnist_exp.disk.files import atomic_write
from mnist_exp.disk.layout import State
from mnist_exp.engine.events import Callback, EpochEnd, LaneEnd
from mnist_exp.errors import ConfigError

if TYPE_CHECKING:
    from mnist_exp.run.session import Run


@final
class TensorBoard(Callback):
    """Event files with the metrics of each epoch in the run's folder: `tensorboard --logdir outputs`.

    Args:
        run: See `session.Run`.

    Raises:
        ConfigError: the extra is missing.
    """

    def __init__(self, run: "Run") -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigError(
                "callbacks=tensorboard needs tensorboard.", 'Install it: pip install "mnist_exp[tensorboard]"'
            ) from error
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

    Args:
        run: See `session.Run`.

    Raises:
        ConfigError: the extra is missing.
    """

    def __init__(self, run: "Run") -> None:
        try:
            import onnxscript  # noqa: F401  # what torch's exporter needs
        except ImportError as error:
            raise ConfigError(
                "callbacks=onnx needs onnxscript.", 'Install it: pip install "mnist_exp[onnx]"'
            ) from error
        self.run = run

    def on_end(self, event: LaneEnd) -> None:
        if event.state != State.FINISHED:
            return
        from mnist_exp.run.export import restore

        network = restore(self.run.config, self.run.folder)
        with torch.no_grad():
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
