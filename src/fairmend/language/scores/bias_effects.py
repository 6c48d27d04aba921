"""What each mask does to the bias, with a standard error, from a table of scores per mask and item.

The bias is B = sum over j of |d_j|, d_j = T - T_j, T = sum over i of a_i T_i (a_i = 1 / n_groups, the groups' shares
when the mean is pooled, 0 when groups are compared with zero). Two forms of a mask's effect:

* "difference": B with the mask minus B without it. Noise makes both too large, by about as much.
* "first-order", for effects that are small or are derivatives themselves: sum over g of c_g (T_g with - T_g without),
  with c_g = dB / dT_g = a_g sum_j s_j - s_g and s_j the sign of d_j. Two things go wrong if the sign is taken from the
  same sample. Where d_j is small its sign is a coin, and |d_j| has a kink: s_j is therefore the derivative of what is
  measured, E|d_j + noise|, which is erf(d_j / (sqrt(2) se_j)): 0 for a group that cannot be told from the mean, the
  sign for one that can. And an error in T_g, shared by sign and effect, biases the product upwards: items (with
  their pair) are split in two folds, the signs of one are used with the effects of the other, and several random
  splits are averaged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy.special import erf

from fairmend.errors import DataError
from fairmend.language.bias.design import Design, design_of
from fairmend.language.protocols import Reference
from fairmend.language.scores.reliability import Reliability, split_reliability
from fairmend.language.scores.toxicity_by_mask import FIRST_ORDER, MaskToxicity
from fairmend.search.base import require_choice

Floats = npt.NDArray[np.float64]
Members = npt.NDArray[np.int64]
Form = Literal["difference", "first-order"]

_N_SPLITS = 8  # random splits in two folds that the signs are averaged over


@dataclass(frozen=True, eq=False)
class BiasEffects:
    """How each mask moves the bias.

    Attributes:
        before: bias without a mask.
        effect: what each mask adds to it, `(n_masks,)`; negative is better.
        standard_error: of each effect, over items, paired, `(n_masks,)`.
        form: how effects were taken.
        reliability: how far the ranking of the masks would repeat on other items.
    """

    before: float
    effect: Floats
    standard_error: Floats
    form: Form
    reliability: Reliability

    @property
    def without(self) -> Floats:
        """Bias with each mask, `(n_masks,)`; a first-order one can fall below 0."""
        return self.before + self.effect


def bias_effects(
    table: MaskToxicity, *, rng: np.random.Generator, group_mean: Reference = "unweighted", form: Form | None = None
) -> BiasEffects:
    """Give the effect of every mask of a table on the bias.

    Args:
        table: toxicities with and without each mask.
        rng: of the splits that signs and reliability are taken from.
        group_mean: what a group is compared with, see `BiasProtocol`.
        form: "first-order" for tables of that method when not given, otherwise "difference".

    Raises:
        DataError: a group with fewer than 2 items.
        InputError: an unknown form or group mean.
    """
    if form is None:
        form = "first-order" if table.methods[0] == FIRST_ORDER else "difference"
    require_choice("form", form, get_args(Form))
    design = design_of(table.prompts, group_mean)
    lonely = [name for name, size in zip(design.names, design.n_clusters, strict=True) if size < 2]
    if lonely:
        each = table.prompts.each
        raise DataError(f"groups with fewer than 2 {each}: {', '.join(lonely)}; add {each} or leave them out")
    seed = int(rng.integers(2**63))

    def contributions(members: Members, of: Design) -> Floats:
        before, without = table.before[members], table.without[:, members]
        if form == "difference":
            return _linear(without, of) - _linear(before, of)
        return (without - before) * _cross_fitted(before, of, np.random.default_rng(seed))

    def effects(drawn: Members) -> Floats:
        members = np.flatnonzero(np.isin(design.clusters, drawn))
        if len(np.unique(design.codes[members])) < len(design.names):
            return np.full(len(table.without), np.nan)  # a half that lacks a group has no bias
        of = design.take(members, keep_shares=True)
        if form == "first-order":
            return np.asarray(contributions(members, of).sum(axis=1), dtype=np.float64)
        without, before = (of.bias(of.means(values[..., members])) for values in (table.without, table.before))
        return np.asarray(without - before, dtype=np.float64)

    return BiasEffects(
        before=float(design.bias(design.means(table.before))),
        effect=effects(np.arange(len(design.strata))),
        standard_error=_standard_error(contributions(np.arange(len(design.codes)), design), design),
        form=form,
        reliability=split_reliability(effects, design.strata, rng=rng, unit=table.prompts.each),
    )


def _standard_error(parts: Floats, design: Design) -> Floats:
    """Of sums of contributions `(n_masks, n_items)` that were drawn within each group."""
    if not design.is_plain:
        # The mean of a group, weighted by how many are drawn together, is none of the noise.
        members = design.members
        parts = (
            parts - parts @ (design.codes[:, None] == np.arange(len(design.names))) @ (members / members.sum(axis=0)).T
        )
    drawn, variance = design.summed(parts), np.zeros(len(parts))
    for stratum in np.unique(design.strata):
        of_stratum = drawn[:, design.strata == stratum]
        if of_stratum.shape[1] > 1:
            variance += of_stratum.shape[1] * of_stratum.var(axis=1, ddof=1)
    return np.sqrt(variance)


def _linear(values: Floats, design: Design) -> Floats:
    """Each item's part in the bias, up to a constant per group: the delta method, `(..., n_items)`."""
    means, members = design.means(values), design.members
    slopes = _slopes(np.sign(design.deviations(means)), design.shares) / members.sum(axis=0)
    return np.asarray(slopes[..., design.codes] * design.weights * values, dtype=np.float64)


def _cross_fitted(before: Floats, design: Design, rng: np.random.Generator) -> Floats:
    """The factor of each item's change, `(n,)`: slope of the bias by the other fold, times its share of the group."""
    codes, members, n_drawn = design.codes, design.members, len(design.strata)
    touched = np.zeros((n_drawn, len(design.names)))
    touched[design.clusters, codes] = 1.0
    fold = np.empty((_N_SPLITS, n_drawn), dtype=np.int64)
    for stratum in np.unique(design.strata):
        of_stratum = design.strata == stratum
        halves = np.arange(of_stratum.sum()) + rng.integers(2, size=(_N_SPLITS, 1))  # the odd one out goes to either
        fold[:, of_stratum] = rng.permuted(halves % 2, axis=1)
    alone = [design.independent(before, group) for group in range(len(design.names))]
    spreads = np.array([values.var(ddof=1) if len(values) > 1 else 0.0 for values in alone])
    factors = np.zeros(len(codes))
    for number in (0, 1):
        other = (fold != number).astype(np.float64)
        # A group of one item has nothing to take its sign from but itself.
        other = np.maximum(other, ((other @ touched == 0).astype(np.float64) @ touched.T))
        of_items = np.take(other, design.clusters, axis=1)
        means = (of_items * before) @ members / (of_items @ members)
        signs = _soft_signs(means, spreads / (other @ touched), design)
        slopes = _slopes(signs, design.shares) / members.sum(axis=0)
        factors += (
            np.where(np.take(fold, design.clusters, axis=1) == number, slopes[:, codes], 0.0).sum(axis=0)
            * design.weights
        )
    return factors / _N_SPLITS


def _soft_signs(means: Floats, variances: Floats, design: Design) -> Floats:
    """E[sign of a deviation] when the group means have these sampling variances, `(..., n_groups)`."""
    found = design.deviations(means)
    errors = np.sqrt(variances @ ((design.shares - np.eye(len(design.shares))) ** 2).T)
    exact = errors == 0
    soft = erf(found / np.where(exact, 1.0, errors) / np.sqrt(2))
    return np.where(exact, np.sign(found), soft)


def _slopes(signs: Floats, shares: Floats) -> Floats:
    """dB / dT_g: (..., n_groups) -> (..., n_groups)."""
    return np.asarray(signs.sum(axis=-1, keepdims=True) * shares - signs, dtype=np.float64)
