"""An export by a template has the bytes that torch's exporter writes; whatever is wrong with one, torch exports."""

import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mnist_exp import models
from mnist_exp.config import Config
from mnist_exp.disk import cache
from mnist_exp.models import Classifier
from mnist_exp.run import build, template
from mnist_exp.sweep import finish

TORCHS = models.export


def network(config: Config, seed: int) -> Classifier:
    """The network of *config*, with weights, means and variances as after some training."""
    built, rng = build.model(config), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in built.state_dict().values():
            tensor.copy_(torch.rand(tensor.shape, generator=rng).to(tensor.dtype))
    return Classifier(built, config.data.mean, config.data.std, config.data.shape).eval()


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> list[Classifier]:
    """What torch's exporter has exported."""
    seen: list[Classifier] = []

    def export(classifier: Classifier) -> bytes:
        seen.append(classifier)
        return TORCHS(classifier)

    monkeypatch.setattr(models, "export", export)
    return seen


def kept() -> Path:
    """The only template."""
    (path,) = cache.folder().glob("export templates/*")
    return path


@pytest.mark.integration
@pytest.mark.parametrize(
    "overrides",
    [
        ["hidden=16"],
        ["hidden=[16,8]", "model.dropout=0.1"],
        ["hidden=16", "model.norm=batch"],
        ["model=small_cnn", "data=cifar10"],
    ],
)
def test_the_bytes_are_those_of_torchs_exporter(
    composed: Callable[..., Config], exported: list[Classifier], overrides: list[str]
) -> None:
    config = composed(*overrides)
    first, second = network(config, 1), network(config, 2)
    assert template.export(config, first) == TORCHS(first)
    assert template.kept(config)
    assert template.export(config, second) == TORCHS(second)
    assert exported == [first]


def test_what_it_exports_says_what_the_network_says(tiny: Callable[..., Config], tmp_path: Path) -> None:
    config, path = tiny(), tmp_path / "model.pt2"
    template.export(config, network(config, 1))
    path.write_bytes(template.export(config, network(config, 2)))
    pixels = torch.randint(256, (5, *config.data.shape), generator=torch.Generator().manual_seed(0)).float()
    answers = torch.export.load(path).module()(pixels)
    assert answers.equal(network(config, 2)(pixels))
    assert not answers.allclose(network(config, 1)(pixels))


@pytest.mark.integration
@pytest.mark.parametrize("settings", [{"hidden": 17}, {"data": {"mean": 0.5}}, {"model": {"activation": "tanh"}}])
def test_another_graph_has_another_template(tiny: Callable[..., Config], settings: dict[str, Any]) -> None:
    template.export(tiny(), network(tiny(), 1))
    assert template.kept(tiny(seed=5, lr=0.5))
    assert not template.kept(tiny(**settings))


@pytest.mark.integration
def test_another_torch_has_another_template(tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch) -> None:
    template.export(tiny(), network(tiny(), 1))
    monkeypatch.setattr(template.provenance, "versions", lambda: {"torch": "another"})
    assert not template.kept(tiny())


@pytest.mark.integration
def test_a_network_of_ones_own_is_always_exported_by_torch(
    tiny: Callable[..., Config], exported: list[Classifier], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny()
    config.model["_target_"] = "mine.Network"
    mine = Classifier(models.MLP(8), 0.1, 0.3)
    assert template.export(config, mine) == template.export(config, mine)
    assert exported == [mine, mine]
    assert not cache.folder().exists()


FOLDER = pytest.mark.not_on("win32", "there the user's folder sees to who may write")


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _open_to_all(path: Path) -> None:
    path.chmod(0o666)


@pytest.mark.integration
@pytest.mark.parametrize("spoil", [_cut, _flip, pytest.param(_open_to_all, marks=FOLDER), Path.unlink])
def test_a_template_that_cannot_be_trusted_is_made_again(
    tiny: Callable[..., Config], exported: list[Classifier], spoil: Callable[[Path], None]
) -> None:
    config = tiny()
    expected = template.export(config, network(config, 1))
    spoil(kept())
    assert not template.kept(config)
    assert template.export(config, network(config, 1)) == expected
    assert len(exported) == 2
    assert template.kept(config)


@FOLDER
@pytest.mark.integration
def test_a_template_of_another_user_is_not_used(tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch) -> None:
    template.export(tiny(), network(tiny(), 1))
    monkeypatch.setattr(os, "geteuid", lambda: kept().stat().st_uid + 1)
    assert not template.kept(tiny())


def test_a_format_that_is_not_understood_leaves_no_template(
    tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "export", lambda classifier: b"another format")
    assert template.export(tiny(), network(tiny(), 1)) == b"another format"
    assert not cache.folder().exists()


@pytest.mark.integration
def test_a_cache_that_cannot_be_written_is_no_error(tiny: Callable[..., Config]) -> None:
    cache.folder().parent.mkdir(parents=True)
    cache.folder().write_text("a file", encoding="utf-8")
    assert template.export(tiny(), network(tiny(), 1)) == TORCHS(network(tiny(), 1))
    assert not template.kept(tiny())


@pytest.mark.integration
def test_a_template_has_no_weights(tiny: Callable[..., Config]) -> None:
    config = tiny()
    template.export(config, network(config, 1))
    blank = network(config, 1)
    for tensor in blank.state_dict().values():
        tensor.zero_()
    assert gzip.decompress(kept().read_bytes()) == TORCHS(blank)


@pytest.mark.integration
def test_weights_of_another_network_are_refused(tiny: Callable[..., Config]) -> None:
    weights = network(tiny(), 1).state_dict()
    exported = TORCHS(network(tiny(), 1))
    with pytest.raises(ValueError, match="size"):
        template.filled(exported, weights | {"network.layers.0.bias": torch.zeros(3)})
    with pytest.raises(ValueError, match="names"):
        template.filled(exported, weights | {"more": torch.zeros(3)})


@pytest.mark.integration
def test_a_sweep_loads_the_exporter_ahead_only_for_a_network_without_template(
    tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[bool] = []
    monkeypatch.setattr(finish, "load_ahead", lambda: loads.append(True))
    template.export(tiny(), network(tiny(), 1))
    finish.prepare([tiny(), tiny(seed=1)])
    assert not loads
    finish.prepare([tiny(), tiny(hidden=17)])
    assert loads
