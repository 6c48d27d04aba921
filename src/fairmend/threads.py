"""How many threads numerical libraries use."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from threadpoolctl import ThreadpoolController

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)
"""The environment variables that say so; they are read on import."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Numerical libraries on one thread: sums then do not depend on the machine, and a run resumes exactly."""
    torch = sys.modules.get("torch")  # who needs it has imported it; it costs seconds
    threads = 0 if torch is None else torch.get_num_threads()
    if torch is not None:
        torch.set_num_threads(1)
    try:
        with _libraries(len(sys.modules)).limit(limits=1):
            yield
    finally:
        if torch is not None:
            torch.set_num_threads(threads)


@lru_cache(maxsize=1)
def _libraries(n_modules: int) -> ThreadpoolController:
    """The loaded numerical libraries. Looking for them takes milliseconds, and only an import can bring another one."""
    return ThreadpoolController()
