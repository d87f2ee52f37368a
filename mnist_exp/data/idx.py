"""The IDX format of MNIST's four files: a big-endian header, then bytes.

Header: two zero bytes, the element type (8: unsigned byte), the number of axes, then each axis as a
32-bit integer. Source: LeCun, Cortes and Burges, http://yann.lecun.com/exdb/mnist.
"""

import math
import struct
from pathlib import Path

import torch
from torch import Tensor

from mnist_exp.errors import DataError

UNSIGNED_BYTE = 8


def read(path: Path) -> Tensor:
    """The array in *path* as uint8, mapped read-only from the file: processes share one copy of its pages.

    Raises:
        DataError: the header is not that of unsigned bytes, or the file is shorter or longer than it says.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(4)
        if len(head) < 4 or head[:3] != bytes([0, 0, UNSIGNED_BYTE]):
            raise DataError(f"{path} is not an IDX file of bytes: it begins with {head.hex() or 'nothing'}.")
        axes = head[3]
        lengths = file.read(4 * axes)
    if len(lengths) < 4 * axes:
        raise DataError(f"{path} ends within its header.")
    shape = struct.unpack(f">{axes}I", lengths)
    offset, count = 4 + 4 * axes, math.prod(shape)
    if size != offset + count:
        raise DataError(f"{path} has {size} bytes, but its header {list(shape)} asks for {offset + count}.")
    # Private mapping: changes of the tensor do not reach the file.
    whole = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
    return whole[offset:].view(shape)


def encode(array: Tensor) -> bytes:
    """*array* (uint8, any shape) as the bytes of an IDX file."""
    header = struct.pack(f">BBBB{array.dim()}I", 0, 0, UNSIGNED_BYTE, array.dim(), *array.shape)
    return header + array.contiguous().numpy().tobytes()
