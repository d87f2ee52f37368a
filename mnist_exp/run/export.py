"""What is made from a trained run: the network to use, the model to serve, the figure of its augmentation."""

from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError

from mnist_exp import config as configs
from mnist_exp import data
from mnist_exp.config import Config
from mnist_exp.disk.files import atomic_write
from mnist_exp.disk.layout import RunFolder
from mnist_exp.errors import CheckpointError, first_line
from mnist_exp.models import Classifier
from mnist_exp.run import build, template, warm


def restore(config: Config, folder: Path) -> Classifier:
    """The trained network of *folder* on the CPU, ready to use or to export.

    Raises:
        CheckpointError: it has no weights yet, or they are damaged or another network's.
    """
    path = warm.trained(folder)
    with torch.device("meta"):  # takes no memory, whatever the config of a foreign folder says
        values = sum(value.numel() for value in build.model(config).state_dict().values())
    if path.stat().st_size < values:
        raise CheckpointError(f"{path} does not fit the run's network of {values:,} values: it is too short.")
    network = build.model(config)
    try:
        network.load_state_dict(safetensors.torch.load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(f"{path} does not fit the run's network: {first_line(error)}") from error
    return Classifier(network, config.data.mean, config.data.std, config.data.shape).eval()


def export_model(config: Config, folder: Path) -> None:
    """Writes the final weights of *folder* as a model that MLflow can serve."""
    atomic_write(RunFolder(folder).model, template.export(config, restore(config, folder)))


def show_augmented(config: Config, folder: Path) -> None:
    """`draw_augmented` for a run that has ended: it trained without figures.

    Raises:
        ExperimentError: the images are missing or damaged.
    """
    train = data.load(config.data, torch.device("cpu")).train
    order = data.Order(train.rows, config.batch_size, configs.order_seed(config), build.augment(config))
    draw_augmented(order, train, folder)


def draw_augmented(order: data.Order, train: data.Split, folder: Path) -> None:
    """Shows in `figures/augmented.png` what *order* does to images, if it augments them."""
    if not order.augment:
        return
    from mnist_exp.charts import run as charts  # matplotlib takes a third of a second to import

    rows = train.rows[:10]
    rng = torch.Generator(rows.device).manual_seed(data.mix(order.seed, 0, 2))
    pixels = train.images[rows].float().view(-1, *train.shape)
    varied = torch.stack([order.augment(pixels, rng) for _ in range(5)])
    figure = charts.augmented(pixels.cpu().numpy(), varied.cpu().numpy())
    figures = RunFolder(folder).figures
    figures.mkdir(exist_ok=True)
    figure.savefig(figures / "augmented.png", dpi=110)
