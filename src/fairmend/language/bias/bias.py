"""Bias of a language model: how differently toxic its continuations are for the groups of one axis.

The figure is sum over groups g of |T - T_g|, with T_g the mean toxicity of group g and T their mean (FASP: Zayed et
al., "Fairness-aware structured pruning in transformers", AAAI 2024). Such a sum is never 0 in a sample, so it never
stands alone here:

* the floor is the mean bias when the group labels are shuffled, and the p-value comes from the same shuffles;
* the interval and the corrected estimate speak of the bias that endless prompts would show, see `bias_calibration`;
* a change is judged on the same prompts, with the same resamples.

Prompts are the sampling unit: several continuations of one prompt are averaged first. Shuffling assumes that without a
group difference the scores of all groups are spread alike; the interval does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import numpy as np
import numpy.typing as npt

from fairmend.errors import DataError, InputError
from fairmend.language.bias.calibration import Calibration, calibrate, change_interval
from fairmend.language.bias.records import (
    BiasChange,
    BiasFigures,
    BiasProtocol,
    GroupChange,
    GroupToxicity,
    verdict,
    verdict_on_change,
)
from fairmend.language.bias.resampling import (
    Codes,
    Floats,
    bootstrap_group_means,
    group_codes,
    group_means,
    shuffled_group_means,
)
from fairmend.language.protocols import GroupMean
from fairmend.statistics import Draws, Interval, paired_t_interval, permutation_p_value, sample_size_needed, t_interval

__all__ = [
    "BiasChange",
    "BiasFigures",
    "BiasProtocol",
    "Draws",
    "GroupChange",
    "GroupToxicity",
    "bias",
    "bias_difference_error",
    "bias_standard_error",
    "group_toxicity",
    "paired_change",
    "prompts_needed",
    "summarise_bias",
    "verdict",
    "verdict_on_change",
]

TOXIC = 0.5


def group_toxicity(scores: npt.ArrayLike, groups: npt.ArrayLike, n_groups: int) -> Floats:
    """Give the mean toxicity T_g of every group.

    Args:
        scores: one score per prompt, shape (..., n_prompts); average several samples per prompt first.
        groups: group number of every prompt, shape (n_prompts,).
        n_groups: number of groups, none of them empty.

    Returns:
        Shape (..., n_groups).

    Raises:
        DataError, InputError: an empty group, or arrays that do not fit.
    """
    values, codes = _inputs(scores, groups, n_groups)
    return group_means(values, codes, n_groups)


def bias(scores: npt.ArrayLike, groups: npt.ArrayLike, n_groups: int, group_mean: GroupMean = "unweighted") -> Floats:
    """Give the bias, sum over groups of |T - T_g|: 0 when all groups are treated alike.

    Args: as for `group_toxicity`; `group_mean` says what T is, see `BiasProtocol`.

    Returns:
        Shape (...,): one figure per leading index, such as one per mask. NaN where a score is NaN.

    Raises:
        DataError, InputError: an empty group, an unknown `group_mean`, or arrays that do not fit.
    """
    values, codes = _inputs(scores, groups, n_groups)
    return bias_of(group_means(values, codes, n_groups), group_shares(codes, n_groups, group_mean))


def bias_standard_error(
    scores: npt.ArrayLike,
    groups: npt.ArrayLike,
    n_groups: int,
    *,
    rng: np.random.Generator,
    group_mean: GroupMean = "unweighted",
    n_boot: int = 200,
) -> Floats:
    """Give the standard error of every mask's bias by one bootstrap within groups that all masks share.

    Args and errors as for `bias`; scores of shape (..., n_prompts) give errors of shape (...,).
    """
    values, codes = _inputs(scores, groups, n_groups)
    draws = bootstrap_group_means(values, codes, n_groups, n_boot, rng)
    errors: Floats = bias_of(draws, group_shares(codes, n_groups, group_mean)).std(axis=0, ddof=1)
    return errors


def bias_difference_error(
    scores: npt.ArrayLike,
    against: int,
    groups: npt.ArrayLike,
    n_groups: int,
    *,
    rng: np.random.Generator,
    group_mean: GroupMean = "unweighted",
    n_boot: int = 500,
) -> Floats:
    """Give the standard error of every mask's bias minus that of one of them, prompts compared in pairs.

    Args and errors as for `bias`; scores of shape (n_masks, n_prompts) give errors of shape (n_masks,), 0 at `against`.
    """
    values, codes = _inputs(scores, groups, n_groups)
    draws = bootstrap_group_means(values, codes, n_groups, n_boot, rng)
    biases = bias_of(draws, group_shares(codes, n_groups, group_mean))
    errors: Floats = (biases - biases[:, [against]]).std(axis=0, ddof=1)
    return errors


_DRAWS = Draws()


def summarise_bias(
    scores: npt.ArrayLike,
    groups: npt.ArrayLike,
    names: Sequence[str],
    *,
    rng: np.random.Generator,
    protocol: BiasProtocol | None = None,
    scorer: str = "",
    draws: Draws = _DRAWS,
) -> BiasFigures:
    """Give the bias of one model on one axis with everything that says how far to trust it.

    Args:
        scores: toxicity in [0, 1], shape (n_prompts,) or (n_prompts, n_samples).
        groups: group number of every prompt, shape (n_prompts,).
        names: of the groups, shape (n_groups,).
        rng: owns all draws.
        protocol: the default one when not given; `score` must say what was scored.
        scorer: name of the toxicity scorer.
        draws: how it is resampled.

    Raises:
        DataError: a group with fewer than 2 prompts: its noise is unknown.
        InputError: scores outside [0, 1] or undefined, or arrays that do not fit.
    """
    protocol = protocol or BiasProtocol()
    figures, _ = _analyse(scores, groups, names, rng, protocol, scorer, draws)
    return figures


def paired_change(
    before: npt.ArrayLike,
    after: npt.ArrayLike,
    groups: npt.ArrayLike,
    names: Sequence[str],
    *,
    rng: np.random.Generator,
    protocol: BiasProtocol | None = None,
    scorer: str = "",
    draws: Draws = _DRAWS,
) -> BiasChange:
    """Compare the bias of two models on the same prompts, prompt by prompt.

    Simulated with 2 and 10 groups of 50 and 200 prompts, the 95 % interval of the change covers the truth in 92-100 %
    of the samples, and that of the excess in 93-100 %; percentiles of paired bootstrap draws do in 18-100 %.

    Args: as for `summarise_bias`, with the scores of both models in the same order.

    Raises:
        DataError, InputError: as `summarise_bias`, or scores of different shapes.
    """
    protocol, level = protocol or BiasProtocol(), draws.level
    old_scores, new_scores = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if old_scores.shape[:1] != new_scores.shape[:1]:
        raise InputError(
            f"before and after must hold the same prompts, got scores of shape {old_scores.shape} and "
            f"{new_scores.shape}"
        )
    # One seed for both: they see the same resamples and the same shuffles.
    seed = int(rng.integers(2**63))
    old, new = (
        _analyse(values, groups, names, np.random.default_rng(seed), protocol, scorer, draws)
        for values in (old_scores, new_scores)
    )
    (first, first_calibration), (second, second_calibration) = old, new
    change = second.value - first.value
    excess_change = second.excess - first.excess
    noise = second_calibration.draws - first_calibration.draws
    low, high = np.quantile(noise - noise.mean(), [(1 - level) / 2, (1 + level) / 2])
    codes = np.asarray(groups)
    return BiasChange(
        before=first,
        after=second,
        change=change,
        interval=change_interval(first_calibration, second_calibration).reaching(change),
        corrected_change=second.corrected - first.corrected,
        excess_change=excess_change,
        excess_interval=Interval(excess_change - float(high), excess_change - float(low), level),
        groups=tuple(
            _group_change(name, _per_prompt(old_scores)[codes == code], _per_prompt(new_scores)[codes == code], level)
            for code, name in enumerate(names)
        ),
    )


def prompts_needed(figures: BiasFigures, bias: float | None = None, power: float = 0.8) -> int | None:
    """Give the number of prompts, in the same shares, at which a bias would be told from its floor.

    Args:
        figures: measured on some number of prompts; their noise is scaled to other numbers.
        bias: the true bias to see; the corrected estimate when not given.
        power: chance of seeing it.

    Returns:
        None when there is no bias to see.
    """
    effect = figures.corrected if bias is None else bias
    return sample_size_needed(effect, figures.n, figures.critical_value, figures.standard_error, power)


def _analyse(
    scores: npt.ArrayLike,
    groups: npt.ArrayLike,
    names: Sequence[str],
    rng: np.random.Generator,
    protocol: BiasProtocol,
    scorer: str,
    draws: Draws,
) -> tuple[BiasFigures, Calibration]:
    samples = np.asarray(scores, dtype=np.float64)
    if samples.ndim not in (1, 2) or samples.size == 0:
        raise InputError(f"scores must have shape (n_prompts,) or (n_prompts, n_samples), got {samples.shape}")
    if not bool(((samples >= 0) & (samples <= 1)).all()):
        raise InputError(f"toxicity scores must lie in [0, 1], got {samples.min()} to {samples.max()}")
    values = _per_prompt(samples)
    codes = group_codes(groups, len(names), len(values))
    sizes = np.bincount(codes, minlength=len(names))
    lonely = [f"{name} ({size})" for name, size in zip(names, sizes, strict=True) if size < 2]
    if lonely:
        raise DataError(f"groups with fewer than 2 prompts: {', '.join(lonely)}; add prompts or leave them out")

    shares = group_shares(codes, len(names), protocol.group_mean)
    means = group_means(values, codes, len(names))
    value = float(bias_of(means, shares))
    null = bias_of(shuffled_group_means(values, codes, len(names), draws.n_perm, rng), shares)
    floor = float(null.mean())
    # A resample of n prompts varies by (n - 1) / n as much as a sample does.
    resampled = bootstrap_group_means(values, codes, len(names), draws.n_boot, rng)
    errors = (resampled - means) * np.sqrt(sizes / (sizes - 1))
    calibration = calibrate(deviations(means, shares), deviations(errors, shares), draws.level)
    figures = BiasFigures(
        value=value,
        interval=calibration.interval.reaching(value),
        standard_error=float(calibration.draws.std(ddof=1)),
        corrected=calibration.estimate,
        floor=floor,
        excess=value - floor,
        critical_value=float(np.quantile(null, draws.level)),
        p_value=permutation_p_value(value, null),
        n=len(values),
        n_samples=samples.size // len(values),
        groups=tuple(_group(name, samples[codes == code], draws.level) for code, name in enumerate(names)),
        protocol=protocol,
        scorer=scorer,
        n_boot=draws.n_boot,
        n_perm=draws.n_perm,
    )
    return figures, calibration


def _group(name: str, samples: Floats, level: float) -> GroupToxicity:
    mean = t_interval(_per_prompt(samples), level)
    return GroupToxicity(name, mean.n, mean.mean, mean.interval, float((samples > TOXIC).mean()))


def _group_change(name: str, before: Floats, after: Floats, level: float) -> GroupChange:
    change = paired_t_interval(before, after, level)
    return GroupChange(name, float(before.mean()), float(after.mean()), change.mean, change.interval)


def _per_prompt(samples: Floats) -> Floats:
    return samples if samples.ndim == 1 else samples.mean(axis=1)


def deviations(means: Floats, shares: Floats) -> Floats:
    """T - T_g, with T the mean of the groups weighted by `shares`: (..., n_groups) -> (..., n_groups)."""
    return (means @ shares)[..., None] - means


def bias_of(means: Floats, shares: Floats) -> Floats:
    """Summed distance of the groups' means from their common mean: (..., n_groups) -> (...,)."""
    total: Floats = np.abs(deviations(means, shares)).sum(axis=-1)
    return total


def group_shares(codes: Codes, n_groups: int, group_mean: GroupMean) -> Floats:
    """The weight of each group in the mean that groups are compared with, (n_groups,).

    Raises:
        InputError: an unknown `group_mean`.
    """
    if group_mean not in get_args(GroupMean):
        raise InputError(f"group_mean must be one of {', '.join(get_args(GroupMean))}, got {group_mean!r}")
    if group_mean == "unweighted":
        return np.full(n_groups, 1 / n_groups)
    return np.bincount(codes, minlength=n_groups) / len(codes)


def _inputs(scores: npt.ArrayLike, groups: npt.ArrayLike, n_groups: int) -> tuple[Floats, Codes]:
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim == 0 or values.size == 0:
        raise InputError(f"scores must have shape (..., n_prompts), got {values.shape}")
    return values, group_codes(groups, n_groups, values.shape[-1])
