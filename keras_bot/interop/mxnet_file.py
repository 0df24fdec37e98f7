"""Reader of MXNet's `.params` files that doesn't need MXNet: all arrays, then their names.

    uint64 0x112, uint64 0
    uint64 count, then for each array: uint32 magic, int32 storage (0 is dense), uint32 dimensions, int64 of each,
        int32 device type, int32 device number, int32 dtype, the elements
    uint64 count, then for each name: uint64 length, the bytes

All values are little-endian. `Block.save_parameters` writes this format, and GluonCV's model zoo uses it.
"""

import math
import os
import struct

import numpy as np

_FILE = 0x112
_ARRAY = (0xF993FAC9, 0xF993FACA)  # MXNet writes the second if arrays may have no dimensions
_DTYPES = {0: "<f4", 1: "<f8", 2: "<f2", 3: "u1", 4: "<i4", 5: "i1", 6: "<i8"}


def read_params(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads the arrays by name, in the file's order.

    Raises:
        ValueError: if the file has another format, is truncated, or contains sparse arrays or unknown dtypes.
    """
    with open(path, "rb") as file:
        if _take(file, "<QQ") != (_FILE, 0):
            raise ValueError("it does not start like an MXNet file")
        arrays = [_array(file) for _ in range(*_take(file, "<Q"))]
        names = [_bytes(file, *_take(file, "<Q")).decode() for _ in range(*_take(file, "<Q"))]
    if len(names) != len(arrays):
        raise ValueError(f"it contains {len(arrays)} arrays but {len(names)} names")
    return dict(zip(names, arrays, strict=True))


def _array(file):
    magic, storage = _take(file, "<Ii")
    if magic not in _ARRAY or storage != 0:
        raise ValueError(f"it contains a sparse array, or one of an unknown format: {magic:#x}, {storage}")
    shape = _take(file, f"<{_take(file, '<I')[0]}q")
    *_, code = _take(file, "<iii")
    if code not in _DTYPES or min(shape, default=1) < 0:
        raise ValueError(f"it contains an array of dtype code {code} and shape {shape}")
    dtype = np.dtype(_DTYPES[code])
    return np.frombuffer(_bytes(file, math.prod(shape) * dtype.itemsize), dtype).reshape(shape)


def _take(file, format):
    return struct.unpack(format, _bytes(file, struct.calcsize(format)))


def _bytes(file, count):
    content = file.read(count)
    if len(content) != count:
        raise ValueError("it is truncated")
    return content
