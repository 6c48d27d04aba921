"""Resampled confusion counts: bootstrap, paired bootstrap and shuffled groups, without touching a row of data.

Every figure of the tabular wing is a function of confusion counts, so counts are drawn instead of people: the
distribution is the same and the cost does not depend on the number of rows.

`given_class` names the strata. True (equalized odds, equal opportunity): the numbers of people per group and true
class are fixed, so that no draw loses a group or a class. False (demographic parity, accuracy): only the group sizes
are fixed, because the base rates belong to what is estimated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from fairmend.statistics import bootstrap_counts, shuffle_counts
from fairmend.tabular.fairness.confusion import Counts, Floats

CELLS_PER_BLOCK = 2**22  # 32 MB of counts at a time, however many draws are asked for

Draw = TypeVar("Draw")


def joint_counts(
    y: npt.NDArray[np.int64],
    before: npt.NDArray[np.int64],
    after: npt.NDArray[np.int64],
    groups: npt.NDArray[np.int64],
    *,
    n_groups: int,
    n_classes: int,
) -> Counts:
    """Count people by group, true class and both predictions, shape (n_groups + 1, n_classes, n_classes, n_classes).

    Args:
        y, before, after: true classes and the predictions of two networks on the same rows, shape (n_rows,).
        groups: group codes, -1 for people outside every compared group, shape (n_rows,).
    """
    joint = np.zeros((n_groups + 1, n_classes, n_classes, n_classes), dtype=np.int64)
    np.add.at(joint, (groups, y, before, after), 1)  # code -1 is the last group row
    return joint


def bootstrap(counts: Counts, given_class: bool, n_draws: int, rng: np.random.Generator) -> Counts:
    """Resample people within their strata: counts of shape (n_draws, n_groups + 1, n_classes, n_classes)."""
    strata = counts if given_class else counts.reshape(len(counts), -1)
    return bootstrap_counts(strata, n_draws, rng).reshape(n_draws, *counts.shape)


def paired_bootstrap(joint: Counts, given_class: bool, n_draws: int, rng: np.random.Generator) -> tuple[Counts, Counts]:
    """Resample people with both their predictions: the counts before and after, from the same people in each draw."""
    n_groups, n_classes = joint.shape[:2]
    strata = joint.reshape(n_groups, n_classes, -1) if given_class else joint.reshape(n_groups, -1)
    draws = bootstrap_counts(strata, n_draws, rng).reshape(n_draws, *joint.shape)
    return draws.sum(axis=-1), draws.sum(axis=-2)


def shuffled_groups(counts: Counts, given_class: bool, n_draws: int, rng: np.random.Generator) -> Counts:
    """Shuffle group labels among the compared people: counts of a network without any group difference.

    With `given_class`, labels are shuffled within each true class, which leaves base rates as they are; otherwise
    among all compared people. Outsiders stay outside. Shape (n_draws, n_groups + 1, n_classes, n_classes).
    """
    shuffled = np.empty((n_draws, *counts.shape), dtype=np.int64)
    shuffled[:, -1] = counts[-1]
    compared = counts[:-1]
    if given_class:
        for true_class in range(counts.shape[-1]):
            shuffled[:, :-1, true_class] = shuffle_counts(compared[:, true_class], n_draws, rng)
    else:
        dealt = shuffle_counts(compared.reshape(len(compared), -1), n_draws, rng)
        shuffled[:, :-1] = dealt.reshape(n_draws, *compared.shape)
    return shuffled


def evaluate(
    draw: Callable[[int], Draw], n_draws: int, n_cells: int, figures: Callable[[Draw], dict[str, Floats]]
) -> dict[str, Floats]:
    """Draw in blocks of bounded memory and compute figures of every draw.

    Args:
        draw: makes the given number of draws.
        n_draws: how many in total.
        n_cells: array elements per draw.
        figures: named figures of a block, each of shape (n_draws_in_block,).

    Returns:
        The same names with arrays of shape (n_draws,).
    """
    block = max(1, CELLS_PER_BLOCK // n_cells)
    sizes = [min(block, n_draws - start) for start in range(0, n_draws, block)]
    parts = [figures(draw(size)) for size in sizes]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
