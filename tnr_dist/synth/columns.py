"""Text columns put together from others, without a Python object for a row."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


def concat(*parts: pa.Array | str) -> pa.Array:
    """Row by row, the parts end to end; a plain string is the same in every row."""
    text = pa.large_string()
    strings = [pa.scalar(part, text) if isinstance(part, str) else part.cast(text) for part in parts]
    return pc.binary_join_element_wise(*strings, pa.scalar("", text))


def join(strings: pa.Array, counts: NDArray[np.int64], separator: str) -> pa.Array:
    """Join the strings of each row; an empty row gives an empty string."""
    offsets = np.concatenate([[0], np.cumsum(counts)])
    return pc.binary_join(pa.LargeListArray.from_arrays(pa.array(offsets), strings), pa.scalar(separator, strings.type))


def bytes_of(lines: pa.Array) -> memoryview:
    """The strings' bytes end to end, without a copy."""
    offsets = np.frombuffer(lines.buffers()[1], np.int64)[lines.offset : lines.offset + len(lines) + 1]
    return memoryview(lines.buffers()[2])[int(offsets[0]) : int(offsets[-1])]
