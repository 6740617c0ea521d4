"""One thread per process for numerical libraries, so that the bytes do not depend on the number of cores."""

from __future__ import annotations

# The thread count decides how BLAS splits and adds sums, and with it the last bits of a result.
SINGLE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "BLIS_NUM_THREADS": "1",
    "VECLIB_MAXIMUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "IGL_NUM_THREADS": "1",
    # The order of a set of strings changes from process to process otherwise.
    "PYTHONHASHSEED": "0",
}
