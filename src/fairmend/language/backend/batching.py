"""How many rows a model takes at once: a fixed number, or as many as fit, found by trying."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, TypeVar

import torch

from fairmend.errors import InputError, ModelError

T = TypeVar("T")
Rows = int | Literal["auto"]
Done = Callable[[int, int], None]
"""Told how much is done, and of how much."""

# Beyond these, more rows at once are no faster.
_ENOUGH_ON_CPU = 128
_ENOUGH_ON_GPU = 1024
_UNKNOWN_MEMORY = 4 << 30


class BatchSize:
    """Runs a function over items in batches, with fewer items at a time after every "out of memory".

    Args:
        rows: items per batch, or "auto": as many as are useful on the device and seem to fit, halved whenever they
            do not fit after all. What was found is kept for the next call.
        device: where the function computes.
        bytes_per_row: memory that one item needs, roughly. Used on the CPU, where a process that asks for too much is
            not told but killed.
        most: of "auto": never more items than these.
    """

    def __init__(self, rows: Rows, device: torch.device, bytes_per_row: int = 1, most: int = _ENOUGH_ON_GPU) -> None:
        if rows != "auto" and (not isinstance(rows, int) or rows < 1):
            raise InputError(f"batch size must be 'auto' or a positive number, got {rows!r}")
        self._is_fixed = rows != "auto"
        if rows != "auto":
            self.rows = rows
        elif device.type == "cuda":
            self.rows = max(1, most)
        else:
            self.rows = max(1, min(most, _ENOUGH_ON_CPU, available_memory() // 4 // max(1, bytes_per_row)))

    def run(self, function: Callable[[Sequence[int]], T], items: Sequence[int]) -> Iterator[tuple[Sequence[int], T]]:
        """Call `function` with consecutive parts of `items` and yield each part with its result.

        Raises:
            ModelError: out of memory with a fixed batch size, or with a single item.
        """
        start = 0
        while start < len(items):
            part = items[start : start + self.rows]
            results = self._attempt(function, part)
            if not results:
                self._shrink(len(part))
                continue
            start += len(part)
            yield part, results[0]

    def _attempt(self, function: Callable[[Sequence[int]], T], part: Sequence[int]) -> list[T]:
        """The result in a list, or an empty list when memory ran out.

        The exception is left behind here, because its traceback holds the tensors that did not fit.
        """
        try:
            return [function(part)]
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return []

    def _shrink(self, n_rows: int) -> None:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if self._is_fixed or n_rows == 1:
            raise ModelError(
                f"out of memory with {n_rows} rows at once: use batch size 'auto' or a smaller one, bfloat16, fewer "
                "new tokens or a shorter window, or a device with more memory"
            )
        self.rows = max(1, n_rows // 2)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on the CPU or on a GPU.

    Torch has a class for it on CUDA only; on the CPU and on MPS nothing but the message tells. Were it reworded, the
    batch would not be halved, and the exception would go on to the user (a test fills the memory to see the words).
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(
        phrase in text for phrase in ("out of memory", "can't allocate memory", "not enough memory")
    )


def available_memory() -> int:
    """Bytes of main memory that can be had without swapping; 4 GiB where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):
        return _UNKNOWN_MEMORY
