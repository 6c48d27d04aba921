"""Group means of resampled and of shuffled prompts, for one or many masks at once.

Every mask of a call sees the same draws, so that differences between masks are paired prompt by prompt. Work is done
in blocks, so that memory does not grow with the number of draws.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from fairmend.errors import DataError, InputError

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]

_BLOCK = 1 << 21  # prompts drawn at a time: 16 MB of indices


def group_codes(groups: npt.ArrayLike, n_groups: int, n_prompts: int) -> Codes:
    """Check group numbers: shape (n_prompts,), each in 0 to n_groups - 1, none of the groups empty.

    Raises:
        DataError: a group without prompts: it has no mean.
        InputError: another shape, or numbers that are not groups.
    """
    codes = np.asarray(groups)
    if codes.shape != (n_prompts,) or not np.issubdtype(codes.dtype, np.integer):
        raise InputError(
            f"groups must be whole numbers of shape ({n_prompts},), one per prompt, got {codes.dtype} {codes.shape}"
        )
    if n_groups < 2 or codes.min(initial=0) < 0 or codes.max(initial=0) >= n_groups:
        raise InputError(
            f"groups must be numbered 0 to n_groups - 1 with at least 2 groups, got numbers {codes.min(initial=0)} to "
            f"{codes.max(initial=0)} and n_groups = {n_groups}"
        )
    empty = np.flatnonzero(np.bincount(codes, minlength=n_groups) == 0)
    if empty.size:
        raise DataError(
            f"groups {', '.join(map(str, empty))} of {n_groups} have no prompts and so no mean toxicity: add prompts, "
            "or leave these groups out"
        )
    return codes.astype(np.int64)


def group_means(scores: Floats, codes: Codes, n_groups: int) -> Floats:
    """Mean score of each group: (..., n_prompts) -> (..., n_groups)."""
    members = codes[:, None] == np.arange(n_groups)
    means: Floats = scores @ (members / members.sum(axis=0))
    return means


def bootstrap_group_means(
    scores: Floats, codes: Codes, n_groups: int, n_draws: int, rng: np.random.Generator
) -> Floats:
    """Group means when prompts are drawn with replacement within their group.

    Args:
        scores: shape (..., n_prompts).

    Returns:
        Shape (n_draws, ..., n_groups).
    """
    flat = scores.reshape(-1, scores.shape[-1])
    means = np.empty((n_draws, len(flat), n_groups))
    for group in range(n_groups):
        members = np.ascontiguousarray(flat[:, codes == group].T)
        size = len(members)
        for rows in _blocks(n_draws, size):
            n_rows = rows.stop - rows.start
            drawn = rng.integers(0, size, (n_rows, size), dtype=np.int32)
            if len(flat) == 1:
                means[rows, 0, group] = members[:, 0][drawn].mean(axis=1)
                continue
            # How often each prompt was drawn, so that one matrix product serves all masks.
            drawn += np.arange(0, n_rows * size, size, dtype=np.int32)[:, None]
            times = np.bincount(drawn.ravel(), minlength=n_rows * size).reshape(n_rows, size)
            means[rows, :, group] = times.astype(np.float64) @ members / size
    return means.reshape(n_draws, *scores.shape[:-1], n_groups)


def shuffled_group_means(scores: Floats, codes: Codes, n_groups: int, n_draws: int, rng: np.random.Generator) -> Floats:
    """Group means when the group labels are dealt out to the prompts anew, group sizes kept.

    Args:
        scores: shape (..., n_prompts).

    Returns:
        Shape (n_draws, ..., n_groups).
    """
    flat = scores.reshape(-1, scores.shape[-1])
    n_prompts = flat.shape[-1]
    sizes = np.bincount(codes, minlength=n_groups)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    means = np.empty((n_draws, len(flat), n_groups))
    for rows in _blocks(n_draws, n_prompts):
        order = np.broadcast_to(np.arange(n_prompts, dtype=np.int32), (rows.stop - rows.start, n_prompts))
        order = rng.permuted(order, axis=1)
        for mask, row in enumerate(flat):
            means[rows, mask] = np.add.reduceat(row[order], starts, axis=1) / sizes
    return means.reshape(n_draws, *scores.shape[:-1], n_groups)


def _blocks(n_draws: int, width: int) -> Iterator[slice]:
    size = max(1, _BLOCK // width)
    for start in range(0, n_draws, size):
        yield slice(start, min(n_draws, start + size))
