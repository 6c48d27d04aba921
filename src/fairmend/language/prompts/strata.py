"""Ordering and dividing prompts so that every group gets its share."""

from __future__ import annotations

import zlib
from collections.abc import Hashable, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from fairmend.errors import InputError

Allocation = Literal["equal", "proportional"]
Codes = npt.NDArray[np.int64]


def stratified_order(groups: Codes, names: Sequence[str], ids: Codes, seed: int, allocation: Allocation) -> Codes:
    """Order all prompts so that every beginning of the order holds the groups in their due shares.

    Args:
        groups, ids: group number and id of each prompt, `(n_prompts,)`.
        names: of the groups. A group's inner order follows from the seed, its name and its ids, so that it stays the
            same when other groups come or go.
        seed: 0 or more.
        allocation: "equal" takes one prompt of every group in turn, as long as it has any; "proportional" keeps the
            groups' shares of the whole, within one prompt per group.

    Returns:
        Positions, `(n_prompts,)`.
    """
    if allocation not in ("equal", "proportional"):
        raise InputError(f"allocation must be 'equal' or 'proportional', got {allocation!r}")
    due = np.empty(len(groups))
    for code, name in enumerate(names):
        members = np.flatnonzero(groups == code)
        members = members[np.argsort(ids[members])]
        ranks = generator(seed, zlib.crc32(name.encode())).permutation(len(members))
        due[members] = ranks if allocation == "equal" else (ranks + 0.5) / len(members)
    return np.lexsort((groups, due)).astype(np.int64)


def generator(seed: int, *keys: int) -> np.random.Generator:
    """A random generator of its own for every seed and keys.

    Raises:
        InputError: the seed is negative.
    """
    if seed < 0:
        raise InputError(f"seed must be 0 or more, got {seed}")
    return np.random.default_rng([seed, *keys])


def linked(first: Sequence[Hashable], second: Sequence[Hashable]) -> Codes:
    """Number the blocks of items that are connected by an equal entry in either column, `(n_items,)`."""
    left, right = _codes(first), _codes(second)
    n_left = int(left.max()) + 1
    size = n_left + int(right.max()) + 1
    graph = coo_array((np.ones(len(left), dtype=np.int8), (left, n_left + right)), shape=(size, size))
    _, component = connected_components(graph, directed=False)
    return _codes(component[left].tolist())


def cut_blocks(groups: Codes, blocks: Codes, shares: npt.NDArray[np.float64], rng: np.random.Generator) -> Codes:
    """Part of each prompt, `(n_prompts,)`: each group's blocks are shuffled and cut by `shares`.

    For many small blocks. A block belongs to the group of its first prompt.
    """
    _, first = np.unique(blocks, return_index=True)
    home = groups[first]
    part = np.empty(len(first), dtype=np.int64)
    for code in np.unique(home):
        members = rng.permutation(np.flatnonzero(home == code))
        middles = (np.arange(len(members)) + 0.5) / len(members)
        part[members] = np.searchsorted(np.cumsum(shares)[:-1], middles)
    return part[blocks]


def deal_blocks(groups: Codes, blocks: Codes, shares: npt.NDArray[np.float64], rng: np.random.Generator) -> Codes:
    """Part of each prompt, `(n_prompts,)`: blocks are dealt, the largest first, to the part that lacks them most.

    For few large blocks that spread over groups, such as templates. What a part lacks is counted in shares of a
    group, so that small groups weigh as much as large ones.
    """
    counts = np.zeros((int(blocks.max()) + 1, int(groups.max()) + 1))
    np.add.at(counts, (blocks, groups), 1.0)
    fractions = counts / counts.sum(axis=0)
    lacking = np.repeat(shares[:, np.newaxis], fractions.shape[1], axis=1)
    part = np.empty(len(fractions), dtype=np.int64)
    for block in np.lexsort((rng.random(len(fractions)), -fractions.sum(axis=1))):
        part[block] = np.argmax(lacking @ fractions[block])
        lacking[part[block]] -= fractions[block]
    return part[blocks]


def _codes(column: Sequence[Hashable]) -> Codes:
    """Number the values of a column in order of appearance."""
    code = {value: number for number, value in enumerate(dict.fromkeys(column))}
    return np.array([code[value] for value in column], dtype=np.int64)
