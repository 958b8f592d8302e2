"""What arrays and plain values hold, as one hash: equal contents have equal names, wherever they come from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt


def content_of(plain: Any, arrays: Iterable[npt.NDArray[np.generic] | None]) -> str:
    """SHA-256 of plain values (what JSON can hold) and of arrays with their types and shapes; None is no array."""
    digest = hashlib.sha256(json.dumps(plain).encode())
    for array in arrays:
        about = None if array is None else (array.dtype.str, array.shape)
        digest.update(f"\0{about}\0".encode())
        if array is not None:
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
