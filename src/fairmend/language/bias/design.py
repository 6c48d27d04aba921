"""How items are grouped, weighted and paired: group means, what they are compared with, and their resamples.

Every mask of a call sees the same draws, so that differences between masks are paired item by item. Work is done in
blocks, so that memory does not grow with the number of draws.

Items of their own are drawn with replacement within their group. Items with weights, or in pairs that may span groups,
are drawn with random weights of mean 1 instead (the Bayesian bootstrap: Rubin, Annals of Statistics 1981), one per
pair: no group can come out empty, whatever groups the pairs span.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import get_args

import numpy as np
import numpy.typing as npt

from fairmend.errors import DataError, InputError
from fairmend.language.prompts.choices import ChoiceSet
from fairmend.language.prompts.prompts import PromptSet
from fairmend.language.protocols import Reference

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]

_BLOCK = 1 << 21  # items drawn at a time: 16 MB of indices


@dataclass(frozen=True, eq=False)
class Design:
    """How items are grouped and what their groups' means are compared with.

    Args:
        codes: group number of each item, `(n_items,)`.
        names: of the groups; none of them is empty.
        reference: what a group's mean is compared with: "unweighted", the mean of the groups' means, "pooled", the
            mean over all items, or "zero".
        weights: of each item in its group's mean, positive, `(n_items,)`; 1 each when empty.
        pairs: number of the pair that each item belongs to, `(n_items,)`: what is drawn together. Each item is drawn
            by itself when empty.

    Attributes:
        clusters: number, from 0, of what each item is drawn with, `(n_items,)`.
        n_clusters: how many of them each group has items in, `(n_groups,)`.
        strata: of every cluster, the rarest of its groups, `(n_clusters,)`: dividing each stratum divides each group.
        shares: weight of each group in the mean that groups are compared with, `(n_groups,)`; all 0 for "zero".

    Raises:
        DataError: an empty group: it has no mean.
        InputError: an unknown reference, codes that are not groups, or columns that do not fit.
    """

    codes: Codes
    names: Sequence[str]
    reference: Reference = "unweighted"
    weights: Floats = field(default_factory=lambda: np.ones(0))
    pairs: Codes = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    clusters: Codes = field(init=False)
    n_clusters: Codes = field(init=False)
    strata: Codes = field(init=False)
    shares: Floats = field(init=False)

    def __post_init__(self) -> None:
        codes, n_groups = np.asarray(self.codes), len(self.names)
        if self.reference not in get_args(Reference):
            raise InputError(f"reference must be one of {', '.join(get_args(Reference))}, got {self.reference!r}")
        if codes.ndim != 1 or not np.issubdtype(codes.dtype, np.integer):
            raise InputError(f"groups must be whole numbers, one per item, got {codes.dtype} {codes.shape}")
        least = 1 if self.reference == "zero" else 2
        if n_groups < least or codes.min(initial=0) < 0 or codes.max(initial=0) >= n_groups:
            raise InputError(
                f"groups must be numbered 0 to n_groups - 1 with at least {least} of them, got numbers "
                f"{codes.min(initial=0)} to {codes.max(initial=0)} and {n_groups} groups"
            )
        weights, pairs = np.asarray(self.weights, dtype=np.float64), np.asarray(self.pairs)
        if {len(weights), len(pairs)} - {0, len(codes)} or not np.all(np.isfinite(weights) & (weights > 0)):
            raise InputError(f"{len(codes)} items need as many pairs and positive weights, or none")
        numbers = np.unique(pairs, return_inverse=True)[1] if pairs.size else np.arange(len(codes))
        touched = np.zeros((int(numbers.max(initial=-1)) + 1, n_groups), dtype=bool)
        touched[numbers, codes] = True
        sizes = touched.sum(axis=0)
        empty = [name for name, size in zip(self.names, sizes, strict=True) if not size]
        if empty:
            raise DataError(f"groups without an item have no mean: {', '.join(empty)}; add items or leave them out")
        weights = weights if weights.size else np.ones(len(codes))
        of_groups = np.bincount(codes, weights, minlength=n_groups)
        shares = {"unweighted": np.full(n_groups, 1 / n_groups), "pooled": of_groups / of_groups.sum()}
        made = {
            "codes": codes.astype(np.int64),
            "weights": weights,
            "pairs": pairs,
            "clusters": numbers.astype(np.int64),
            "n_clusters": sizes,
            "strata": np.where(touched, sizes, len(codes) + 1).argmin(axis=1),
            "shares": shares.get(self.reference, np.zeros(n_groups)),
        }
        for name, value in made.items():
            object.__setattr__(self, name, value)

    @property
    def is_plain(self) -> bool:
        """Whether every item is drawn by itself and counts once."""
        return len(self.strata) == len(self.codes) and bool((self.weights == 1).all())

    @property
    def members(self) -> Floats:
        """The weight of each item in each group, `(n_items, n_groups)`."""
        return np.asarray((self.codes[:, None] == np.arange(len(self.names))) * self.weights[:, None])

    def take(self, rows: npt.ArrayLike, *, keep_shares: bool = False) -> Design:
        """The items in these rows, of every group; `keep_shares` lets groups weigh what they weigh among all items."""
        kept = np.asarray(rows, dtype=np.int64)
        pairs = self.pairs[kept] if self.pairs.size else self.pairs
        taken = Design(self.codes[kept], self.names, self.reference, self.weights[kept], pairs)
        if keep_shares:
            object.__setattr__(taken, "shares", self.shares)
        return taken

    def means(self, scores: npt.ArrayLike) -> Floats:
        """Mean score of each group: (..., n_items) -> (..., n_groups).

        Raises:
            InputError: another number of items.
        """
        members = self.members
        means: Floats = self._checked(scores) @ (members / members.sum(axis=0))
        return means

    def deviations(self, means: Floats) -> Floats:
        """What groups are compared with, less their means: (..., n_groups) -> (..., n_groups)."""
        return np.asarray((means @ self.shares)[..., None] - means, dtype=np.float64)

    def bias(self, means: Floats) -> Floats:
        """Summed distance of the groups' means from what they are compared with: (..., n_groups) -> (...,)."""
        total: Floats = np.abs(self.deviations(means)).sum(axis=-1)
        return total

    def summed(self, values: Floats) -> Floats:
        """Sums over what is drawn together: (..., n_items) -> (..., n_clusters)."""
        order = np.argsort(self.clusters, kind="stable")
        starts = np.searchsorted(self.clusters[order], np.arange(len(self.strata)))
        return np.asarray(np.add.reduceat(values[..., order], starts, axis=-1), dtype=np.float64)

    def independent(self, scores: Floats, group: int) -> Floats:
        """One value per cluster of a group, whose mean is the group's and whose spread is the mean's error.

        They are the scores themselves where each item counts once; otherwise the mean is linearised.
        """
        of_group = self.codes == group
        if self.is_plain:
            return np.asarray(scores[of_group], dtype=np.float64)
        weights = self.weights * of_group
        mean = weights @ scores / weights.sum()
        parts = self.summed(weights * (scores - mean))[np.unique(self.clusters[of_group])]
        return np.asarray(mean + len(parts) * parts / weights.sum(), dtype=np.float64)

    def bootstrap(self, scores: npt.ArrayLike, n_draws: int, rng: np.random.Generator) -> Floats:
        """Group means of resampled items: (..., n_items) -> (n_draws, ..., n_groups)."""
        values = self._checked(scores)
        flat = values.reshape(-1, values.shape[-1])
        means = np.empty((n_draws, len(flat), len(self.names)))
        if self.is_plain:
            self._drawn_with_replacement(flat, means, rng)
        else:
            centre, members = self.means(flat), self.members.T
            totals, sums = self.summed(members), self.summed(members * flat[:, None])
            # Random weights vary by n / (n + 1) as much as draws with replacement do.
            stretch = np.sqrt((self.n_clusters + 1) / self.n_clusters)
            for rows in _blocks(n_draws, len(self.strata)):
                drawn = rng.standard_exponential((rows.stop - rows.start, len(self.strata)))
                found = np.moveaxis(sums @ drawn.T, -1, 0) / (drawn @ totals.T)[:, None]
                means[rows] = centre + (found - centre) * stretch
        return means.reshape(n_draws, *values.shape[:-1], len(self.names))

    def _drawn_with_replacement(self, flat: Floats, means: Floats, rng: np.random.Generator) -> None:
        n_draws = len(means)
        for group in range(len(self.names)):
            members = np.ascontiguousarray(flat[:, self.codes == group].T)
            size = len(members)
            for rows in _blocks(n_draws, size):
                n_rows = rows.stop - rows.start
                drawn = rng.integers(0, size, (n_rows, size), dtype=np.int32)
                if len(flat) == 1:
                    means[rows, 0, group] = members[:, 0][drawn].mean(axis=1)
                    continue
                # How often each item was drawn, so that one matrix product serves all masks.
                drawn += np.arange(0, n_rows * size, size, dtype=np.int32)[:, None]
                times = np.bincount(drawn.ravel(), minlength=n_rows * size).reshape(n_rows, size)
                means[rows, :, group] = times.astype(np.float64) @ members / size

    def null(self, scores: npt.ArrayLike, n_draws: int, rng: np.random.Generator) -> Floats:
        """Group means without any difference: (n_items,) -> (n_draws, n_groups).

        Group labels are dealt out anew: within a pair that spans groups, otherwise among all other items and pairs.
        Against zero the signs are: heads or tails for each item or pair.
        """
        values, n_groups = self._checked(scores), len(self.names)
        means = np.empty((n_draws, n_groups))
        members, n_items, n_drawn = self.members.T, len(self.codes), len(self.strata)
        weighted, sums = self.weights * values, self.summed(members * values)
        first = self.codes[np.unique(self.clusters, return_index=True)[1]]
        spans = self.summed((self.codes != first[self.clusters]) * 1.0) > 0
        whole, inside = np.flatnonzero(~spans), np.flatnonzero(spans[self.clusters])
        inside = inside[np.argsort(self.clusters[inside], kind="stable")]
        for rows in _blocks(n_draws, n_items):
            n_rows = rows.stop - rows.start
            if self.reference == "zero":
                signs = rng.integers(0, 2, (n_rows, n_drawn)) * 2.0 - 1
                means[rows] = signs @ sums.T / members.sum(axis=1)
            elif self.is_plain:
                order = rng.permuted(np.broadcast_to(np.arange(n_items, dtype=np.int32), (n_rows, n_items)), axis=1)
                sizes = self.n_clusters
                starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
                means[rows] = np.add.reduceat(values[order], starts, axis=1) / sizes
            else:
                dealt = np.empty((n_rows, n_drawn), dtype=np.int64)
                dealt[:, whole] = rng.permuted(np.broadcast_to(first[whole], (n_rows, len(whole))), axis=1)
                labels = dealt[:, self.clusters]
                mixed = np.argsort(self.clusters[inside] + rng.random((n_rows, len(inside))), axis=1)
                labels[:, inside] = self.codes[inside][mixed]
                cells = (labels + np.arange(n_rows)[:, None] * n_groups).ravel()
                found, weights = (
                    np.bincount(cells, np.tile(each, n_rows), n_rows * n_groups) for each in (weighted, self.weights)
                )
                means[rows] = (found / weights).reshape(n_rows, n_groups)
        return means

    def _checked(self, scores: npt.ArrayLike) -> Floats:
        values = np.asarray(scores, dtype=np.float64)
        if values.ndim == 0 or values.shape[-1] != len(self.codes) or values.size == 0:
            raise InputError(f"scores must have shape (..., {len(self.codes)}), one per item, got {values.shape}")
        return values


def design_of(prompts: PromptSet, reference: Reference = "unweighted") -> Design:
    """How these prompts or choices are grouped; choices that are compared with zero always are.

    Args:
        prompts: the items.
        reference: what a group's mean is compared with otherwise, see `Design`.
    """
    if not isinstance(prompts, ChoiceSet):
        return Design(prompts.groups, prompts.group_names, reference)
    compared: Reference = "zero" if prompts.compared == "zero" else reference
    return Design(prompts.groups, prompts.group_names, compared, prompts.weights, prompts.pairs)


def _blocks(n_draws: int, width: int) -> Iterator[slice]:
    size = max(1, _BLOCK // width)
    for start in range(0, n_draws, size):
        yield slice(start, min(n_draws, start + size))
