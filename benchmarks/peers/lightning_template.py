"""Lightning as lightning-hydra-template does it: Hydra, a module with torchmetrics, a data module, its callbacks.

Best checkpoint and last, model summary, a progress bar, a CSV logger, validation each epoch, a test at the end of
the best checkpoint. `-m` runs the points one after the other, as Hydra does by default.
"""

from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from benchmarks.peers.settings import TRAIN, VAL, Settings

ConfigStore.instance().store("lightning_template", Settings)


def train(settings: Settings, folder: str) -> float:
    """Trains and tests in *folder*; returns the best validation accuracy, 0 to 1."""
    import torch

    from benchmarks.peers import vision

    vision.prepare()
    import lightning as L
    from lightning.pytorch.callbacks import ModelCheckpoint, RichModelSummary, RichProgressBar
    from lightning.pytorch.loggers import CSVLogger
    from torch.utils.data import DataLoader, Dataset, random_split
    from torchmetrics import MaxMetric, MeanMetric
    from torchmetrics.classification import MulticlassAccuracy
    from torchvision.datasets import MNIST

    class Digits(L.LightningDataModule):
        def setup(self, stage: str) -> None:
            whole = MNIST(settings.root, train=True, transform=vision.transform())
            rng = torch.Generator().manual_seed(42)
            self.train, self.val = random_split(whole, (TRAIN, VAL), rng)
            self.test = MNIST(settings.root, train=False, transform=vision.transform())

        def loader(self, data: "Dataset[object]", shuffle: bool) -> "DataLoader[object]":
            return DataLoader(data, batch_size=settings.batch_size, shuffle=shuffle)

        def train_dataloader(self) -> "DataLoader[object]":
            return self.loader(self.train, shuffle=True)

        def val_dataloader(self) -> "DataLoader[object]":
            return self.loader(self.val, shuffle=False)

        def test_dataloader(self) -> "DataLoader[object]":
            return self.loader(self.test, shuffle=False)

    class Network(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            nn = torch.nn
            self.net = nn.Sequential(
                nn.Flatten(), nn.Linear(784, settings.hidden), nn.ReLU(), nn.Linear(settings.hidden, 10)
            )
            self.criterion = nn.CrossEntropyLoss()
            self.losses: Any = nn.ModuleDict({f"{part}_": MeanMetric() for part in ("train", "val", "test")})
            self.hits: Any = nn.ModuleDict({f"{part}_": MulticlassAccuracy(10) for part in ("train", "val", "test")})
            self.best = MaxMetric()

        def common(self, batch: tuple[torch.Tensor, torch.Tensor], part: str) -> torch.Tensor:
            x, y = batch
            logits = self.net(x)
            loss: torch.Tensor = self.criterion(logits, y)
            loss_metric, hit_metric = self.losses[f"{part}_"], self.hits[f"{part}_"]
            loss_metric(loss)
            hit_metric(logits.argmax(1), y)
            self.log(f"{part}/loss", loss_metric, on_step=False, on_epoch=True, prog_bar=True)
            self.log(f"{part}/acc", hit_metric, on_step=False, on_epoch=True, prog_bar=True)
            return loss

        def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], index: int) -> torch.Tensor:
            return self.common(batch, "train")

        def validation_step(self, batch: tuple[torch.Tensor, torch.Tensor], index: int) -> None:
            self.common(batch, "val")

        def on_validation_epoch_end(self) -> None:
            self.best(self.hits["val_"].compute())
            self.log("val/acc_best", self.best.compute(), prog_bar=True)

        def test_step(self, batch: tuple[torch.Tensor, torch.Tensor], index: int) -> None:
            self.common(batch, "test")

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=settings.lr)

    L.seed_everything(settings.seed, workers=True)
    keeper = ModelCheckpoint(dirpath=f"{folder}/checkpoints", monitor="val/acc", mode="max", save_last=True)
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=settings.epochs,
        limit_train_batches=settings.steps or 1.0,
        callbacks=[keeper, RichModelSummary(), RichProgressBar()],
        logger=CSVLogger(folder, name="csv"),
        default_root_dir=folder,
    )
    model, data = Network(), Digits()
    trainer.fit(model, data)
    trainer.test(model, data, ckpt_path=keeper.best_model_path)
    return float(keeper.best_model_score or 0.0)


@hydra.main(version_base="1.3", config_path=None, config_name="lightning_template")  # type: ignore[untyped-decorator]  # hydra ships no types
def main(cfg: DictConfig) -> float:
    """Trains one point in Hydra's output folder."""
    settings = Settings(**OmegaConf.to_container(cfg))  # type: ignore[arg-type]
    return train(settings, HydraConfig.get().runtime.output_dir)


if __name__ == "__main__":
    main()
