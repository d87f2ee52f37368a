"""Exports a network without torch's exporter, whose import takes a second and more.

`model.pt2` is a zip in which the weights lie apart from the graph, and the graph of one of our networks depends on its
settings alone. So the first export of such a network leaves its file in the per-user cache, with zeros for weights, and
later ones fill in theirs. The bytes are those that torch itself would write.

The graph is code for whoever loads the model. So a template that another user may have written is not used.
"""

import gzip
import io
import json
import logging
import zlib
from collections.abc import Mapping

import torch
from torch import Tensor

from mnist_exp import models
from mnist_exp.config import Config
from mnist_exp.disk import cache, provenance
from mnist_exp.disk.files import sha256
from mnist_exp.models import Classifier

log = logging.getLogger(__name__)

WEIGHTS = "data/weights/model_weights_config.json"
"""The record that names the record of each weight."""
OF_WRITER = (".data/", "byteorder")
"""Records that torch's writer adds by itself."""


def export(config: Config, classifier: Classifier) -> bytes:
    """*classifier*, the network of *config*, in torch's export format; by its template if there is one."""
    weights = classifier.state_dict()
    if template := kept(config):
        return filled(template, weights)
    exported = models.export(classifier)
    if name := _name(config):
        try:
            if filled(exported, weights) == exported:
                blank = filled(exported, {key: torch.zeros_like(value) for key, value in weights.items()})
                cache.keep(name, gzip.compress(blank, compresslevel=1))
        except Exception as error:  # another torch may write another format; its own exporter remains
            log.debug("The export was not kept as a template: %s", error)
    return exported


def kept(config: Config) -> bytes | None:
    """The template of *config*; a damaged one is as good as none."""
    name = _name(config)
    kept = cache.read(name) if name else None
    try:
        return gzip.decompress(kept) if kept else None
    except (OSError, EOFError, zlib.error):
        return None


def _name(config: Config) -> str:
    """What the template of *config* is kept as, by all that its graph depends on; empty for a network that is not ours.

    For nobody knows which code that depends on.
    """
    if not config.model["_target_"].startswith(f"{models.__name__}."):
        return ""
    data = config.data
    graph = [config.model, data.shape, data.num_classes, data.mean, data.std]
    code = [str(provenance.PACKAGE), provenance.code_fingerprint(), provenance.versions()]
    return f"export templates/{sha256(json.dumps([graph, code], sort_keys=True).encode())}.gz"


def filled(exported: bytes, weights: Mapping[str, Tensor]) -> bytes:
    """The file *exported* with these *weights* in place of its own, written as torch writes it.

    Raises:
        ValueError: it has other weights, by their names or sizes.
    """
    source, target = torch._C.PyTorchFileReader(io.BytesIO(exported)), io.BytesIO()
    records = {name: source.get_record(name) for name in source.get_all_records() if not name.startswith(OF_WRITER)}
    described = json.loads(records[WEIGHTS])["config"]
    if described.keys() != weights.keys():
        raise ValueError("its weights have other names")
    for key, about in described.items():
        record, data = f"data/weights/{about['path_name']}", weights[key].numpy().tobytes()
        if len(records[record]) != len(data):
            raise ValueError(f"its {key} has another size")
        records[record] = data
    writer = torch._C.PyTorchFileWriter(target)
    writer.set_min_version(int(source.get_record(".data/version")))
    for name, data in records.items():
        writer.write_record(name, data, len(data))
    writer.write_end_of_file()
    return target.getvalue()
