"""Type names of arrays; shapes are given in docstrings."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Ints32 = NDArray[np.int32]
Bools = NDArray[np.bool_]
Labels = NDArray[np.uint8]
Bytes = NDArray[np.uint8]
