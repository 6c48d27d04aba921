"""What each mask does to the bias, with a standard error, from a table of toxicities per mask and prompt.

The bias is B = sum over j of |d_j|, d_j = T - T_j, T = sum over i of a_i T_i (a_i = 1 / n_groups, or the groups' shares
when the mean is pooled). Two forms of a mask's effect:

* "difference": B with the mask minus B without it. Noise makes both too large, by about as much.
* "first-order", for effects that are small or are derivatives themselves: sum over g of c_g (T_g with - T_g without),
  with c_g = dB / dT_g = a_g sum_j s_j - s_g and s_j the sign of d_j. Two things go wrong if the sign is taken from the
  same sample. Where d_j is small its sign is a coin, and |d_j| has a kink: s_j is therefore the derivative of what is
  measured, E|d_j + noise|, which is erf(d_j / (sqrt(2) se_j)): 0 for a group that cannot be told from the mean, the
  sign for one that can. And an error in T_g, shared by sign and effect, biases the product upwards: prompts are
  split in two folds, the signs of one are used with the effects of the other, and several random splits are averaged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy.special import erf

from fairmend.errors import DataError
from fairmend.language.bias.bias import bias_of, deviations, group_shares
from fairmend.language.bias.resampling import group_means
from fairmend.language.protocols import GroupMean
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
        standard_error: of each effect, over prompts, paired, `(n_masks,)`.
        form: how effects were taken.
        reliability: how far the ranking of the masks would repeat on other prompts.
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
    table: MaskToxicity, *, rng: np.random.Generator, group_mean: GroupMean = "unweighted", form: Form | None = None
) -> BiasEffects:
    """Give the effect of every mask of a table on the bias.

    Args:
        table: toxicities with and without each mask.
        rng: of the splits that signs and reliability are taken from.
        group_mean: what a group is compared with, see `BiasProtocol`.
        form: "first-order" for tables of that method when not given, otherwise "difference".

    Raises:
        DataError: a group with fewer than 2 prompts.
        InputError: an unknown form or group mean.
    """
    if form is None:
        form = "first-order" if table.methods[0] == FIRST_ORDER else "difference"
    require_choice("form", form, get_args(Form))
    codes, sizes = table.prompts.groups, np.bincount(table.prompts.groups)
    lonely = [name for name, size in zip(table.prompts.group_names, sizes, strict=True) if size < 2]
    if lonely:
        raise DataError(f"groups with fewer than 2 prompts: {', '.join(lonely)}; add prompts or leave them out")
    shares = group_shares(codes, len(sizes), group_mean)
    seed = int(rng.integers(2**63))

    def contributions(members: Members) -> Floats:
        fold_rng = np.random.default_rng(seed)
        before, without = table.before[members], table.without[:, members]
        if form == "difference":
            return _differences(before, without, codes[members], shares)
        return (without - before) * _cross_fitted(before, codes[members], shares, fold_rng)

    def effects(members: Members) -> Floats:
        if form == "first-order":
            return np.asarray(contributions(members).sum(axis=1), dtype=np.float64)
        of_members = codes[members]
        without, before = (
            bias_of(group_means(values[..., members], of_members, len(shares)), shares)
            for values in (table.without, table.before)
        )
        return np.asarray(without - before, dtype=np.float64)

    everyone = np.arange(len(codes))
    return BiasEffects(
        before=float(bias_of(group_means(table.before, codes, len(sizes)), shares)),
        effect=effects(everyone),
        standard_error=_standard_error(contributions(everyone), codes),
        form=form,
        reliability=split_reliability(effects, codes, rng=rng),
    )


def _standard_error(parts: Floats, codes: Members) -> Floats:
    """Of sums of contributions `(n_masks, n_prompts)` whose prompts were drawn within each group."""
    variance = np.zeros(len(parts))
    for group in np.unique(codes):
        of_group = parts[:, codes == group]
        variance += of_group.shape[1] * of_group.var(axis=1, ddof=1)
    return np.sqrt(variance)


def _differences(before: Floats, without: Floats, codes: Members, shares: Floats) -> Floats:
    """Each prompt's part in the change of the bias, up to a constant per group: the delta method, `(n_masks, n)`."""
    sizes = np.bincount(codes, minlength=len(shares))

    def linear(values: Floats) -> Floats:
        means = group_means(values, codes, len(shares))
        slopes = _slopes(np.sign(deviations(means, shares)), shares)
        return np.asarray((slopes / sizes)[..., codes] * values, dtype=np.float64)

    return linear(without) - linear(before)


def _cross_fitted(before: Floats, codes: Members, shares: Floats, rng: np.random.Generator) -> Floats:
    """The factor of each prompt's change of toxicity, `(n,)`: slope of the bias by the other fold, over group size."""
    n_groups = len(shares)
    sizes = np.bincount(codes, minlength=n_groups)
    members = (codes[:, None] == np.arange(n_groups)).astype(np.float64)
    fold = np.empty((_N_SPLITS, len(codes)), dtype=np.int64)
    for group, size in enumerate(sizes):
        halves = np.arange(size) + rng.integers(2, size=(_N_SPLITS, 1))  # the odd one out goes to either fold
        fold[:, codes == group] = rng.permuted(halves % 2, axis=1)
    spreads = np.array([before[codes == group].var(ddof=1) if sizes[group] > 1 else 0.0 for group in range(n_groups)])
    factors = np.zeros(len(codes))
    for number in (0, 1):
        other = (fold != number).astype(np.float64)
        # A group of one prompt has nothing to take its sign from but itself.
        other = np.maximum(other, ((other @ members == 0).astype(np.float64) @ members.T))
        counts = other @ members
        slopes = _slopes(_soft_signs((other * before) @ members / counts, spreads / counts, shares), shares)
        factors += np.where(fold == number, (slopes / sizes)[:, codes], 0.0).sum(axis=0)
    return factors / _N_SPLITS


def _soft_signs(means: Floats, variances: Floats, shares: Floats) -> Floats:
    """E[sign of a deviation] when the group means have these sampling variances, `(..., n_groups)`."""
    found = deviations(means, shares)
    errors = np.sqrt(variances @ ((shares - np.eye(len(shares))) ** 2).T)
    exact = errors == 0
    soft = erf(found / np.where(exact, 1.0, errors) / np.sqrt(2))
    return np.where(exact, np.sign(found), soft)


def _slopes(signs: Floats, shares: Floats) -> Floats:
    """dB / dT_g: (..., n_groups) -> (..., n_groups)."""
    return np.asarray(signs.sum(axis=-1, keepdims=True) * shares - signs, dtype=np.float64)
