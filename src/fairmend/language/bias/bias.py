"""Bias of a language model: how differently it scores on items about the groups of one axis.

The figure is sum over groups g of |T - T_g|, with T_g the mean score of group g, a toxicity or a preference, and T
their mean (FASP: Zayed et al., "Fairness-aware structured pruning in transformers", AAAI 2024) or 0. Such a sum is
never 0 in a sample, so it never stands alone here:

* the floor is the mean bias when the group labels (against zero: the signs) are shuffled, and the p-value comes from
  the same shuffles;
* the interval and the corrected estimate speak of the bias that endless items would show, see `calibration`;
* a change is judged on the same items, with the same resamples.

Items are the sampling unit, or pairs of them: several continuations of one prompt are averaged first. Shuffling assumes
that without a group difference the scores of all groups are spread alike (against zero: symmetrically); the interval
does not.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fairmend.errors import DataError, InputError
from fairmend.language.bias.calibration import Calibration, calibrate, change_interval
from fairmend.language.bias.design import Design, Floats
from fairmend.language.bias.records import (
    BiasChange,
    BiasFigures,
    BiasProtocol,
    GroupChange,
    GroupFigures,
    verdict,
    verdict_on_change,
)
from fairmend.language.protocols import Averaged
from fairmend.statistics import Draws, Interval, permutation_p_value, sample_size_needed, t_interval

__all__ = [
    "BiasChange",
    "BiasFigures",
    "BiasProtocol",
    "Design",
    "Draws",
    "GroupChange",
    "GroupFigures",
    "bias",
    "bias_difference_error",
    "bias_standard_error",
    "paired_change",
    "prompts_needed",
    "summarise_bias",
    "verdict",
    "verdict_on_change",
]


def bias(scores: npt.ArrayLike, design: Design) -> Floats:
    """Give the bias, sum over groups of |T - T_g|: 0 when all groups are treated alike.

    Args:
        scores: one score per item, shape (..., n_items); average several samples per prompt first.
        design: how the items are grouped, and what T is.

    Returns:
        Shape (...,): one figure per leading index, such as one per mask. NaN where a score is NaN.

    Raises:
        InputError: another number of items.
    """
    return design.bias(design.means(scores))


def bias_standard_error(
    scores: npt.ArrayLike, design: Design, *, rng: np.random.Generator, n_boot: int = 200
) -> Floats:
    """Give the standard error of every mask's bias by one bootstrap within groups that all masks share.

    Args and errors as for `bias`; scores of shape (..., n_items) give errors of shape (...,).
    """
    errors: Floats = design.bias(design.bootstrap(scores, n_boot, rng)).std(axis=0, ddof=1)
    return errors


def bias_difference_error(
    scores: npt.ArrayLike, against: int, design: Design, *, rng: np.random.Generator, n_boot: int = 500
) -> Floats:
    """Give the standard error of every mask's bias minus that of one of them, items compared in pairs.

    Args and errors as for `bias`; scores of shape (n_masks, n_items) give errors of shape (n_masks,), 0 at `against`.
    """
    biases = design.bias(design.bootstrap(scores, n_boot, rng))
    errors: Floats = (biases - biases[:, [against]]).std(axis=0, ddof=1)
    return errors


_DRAWS = Draws()


def summarise_bias(
    scores: npt.ArrayLike,
    design: Design,
    *,
    rng: np.random.Generator,
    score: Averaged = "continuation",
    scorer: str = "",
    draws: Draws = _DRAWS,
) -> BiasFigures:
    """Give the bias of one model on one axis with everything that says how far to trust it.

    Args:
        scores: shape (n_items,) or (n_items, n_samples): toxicities in [0, 1], or preferences in nats.
        design: how the items are grouped, and what groups are compared with.
        rng: owns all draws.
        score: what the scores are, see `BiasProtocol`.
        scorer: name of the toxicity scorer.
        draws: how it is resampled.

    Raises:
        DataError: a group with fewer than 2 items (or pairs): its noise is unknown.
        InputError: toxicities outside [0, 1], scores that are undefined, or arrays that do not fit.
    """
    return _analyse(scores, design, rng, BiasProtocol(design.reference, score), scorer, draws)[0]


def paired_change(
    before: npt.ArrayLike,
    after: npt.ArrayLike,
    design: Design,
    *,
    rng: np.random.Generator,
    score: Averaged = "continuation",
    scorer: str = "",
    draws: Draws = _DRAWS,
) -> BiasChange:
    """Compare the bias of two models on the same items, item by item.

    Simulated with 2 and 10 groups of 50 and 200 prompts, the 95 % interval of the change covers the truth in 92-100 %
    of the samples, and that of the excess in 93-100 %; percentiles of paired bootstrap draws do in 18-100 %.

    Args: as for `summarise_bias`, with the scores of both models in the same order.

    Raises:
        DataError, InputError: as `summarise_bias`, or scores of different shapes.
    """
    protocol, level = BiasProtocol(design.reference, score), draws.level
    old_scores, new_scores = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if old_scores.shape[:1] != new_scores.shape[:1]:
        raise InputError(
            f"before and after must hold the same {protocol.words.items}, got scores of shape {old_scores.shape} and "
            f"{new_scores.shape}"
        )
    # One seed for both: they see the same resamples and the same shuffles.
    seed = int(rng.integers(2**63))
    (first, first_calibration), (second, second_calibration) = (
        _analyse(values, design, np.random.default_rng(seed), protocol, scorer, draws)
        for values in (old_scores, new_scores)
    )
    change = second.value - first.value
    excess_change = second.excess - first.excess
    noise = second_calibration.draws - first_calibration.draws
    low, high = np.quantile(noise - noise.mean(), [(1 - level) / 2, (1 + level) / 2])
    moved = _per_item(new_scores) - _per_item(old_scores)
    return BiasChange(
        before=first,
        after=second,
        change=change,
        interval=change_interval(first_calibration, second_calibration).reaching(change),
        corrected_change=second.corrected - first.corrected,
        excess_change=excess_change,
        excess_interval=Interval(excess_change - float(high), excess_change - float(low), level),
        groups=tuple(
            _group_change(old, new, design.independent(moved, code), level)
            for code, (old, new) in enumerate(zip(first.groups, second.groups, strict=True))
        ),
    )


def prompts_needed(figures: BiasFigures, bias: float | None = None, power: float = 0.8) -> int | None:
    """Give the number of items, in the same shares, at which a bias would be told from its floor.

    Args:
        figures: measured on some number of items; their noise is scaled to other numbers.
        bias: the true bias to see; the corrected estimate when not given.
        power: chance of seeing it.

    Returns:
        None when there is no bias to see.
    """
    effect = figures.corrected if bias is None else bias
    return sample_size_needed(effect, figures.n, figures.critical_value, figures.standard_error, power)


def _analyse(
    scores: npt.ArrayLike, design: Design, rng: np.random.Generator, protocol: BiasProtocol, scorer: str, draws: Draws
) -> tuple[BiasFigures, Calibration]:
    samples, words = np.asarray(scores, dtype=np.float64), protocol.words
    if samples.ndim not in (1, 2) or samples.size == 0:
        raise InputError(
            f"scores must have shape (n_{words.items},) or (n_{words.items}, n_samples), got {samples.shape}"
        )
    if not protocol.is_preference and not bool(((samples >= 0) & (samples <= 1)).all()):
        raise InputError(f"toxicity scores must lie in [0, 1], got {samples.min()} to {samples.max()}")
    if not bool(np.isfinite(samples).all()):
        raise InputError(f"{int((~np.isfinite(samples)).sum())} of {samples.size} {words.mean}s are not finite numbers")
    values, sizes = _per_item(samples), design.n_clusters
    lonely = [f"{name} ({size})" for name, size in zip(design.names, sizes, strict=True) if size < 2]
    if lonely:
        drawn = words.items if design.is_plain else f"{words.items} or pairs"
        raise DataError(f"groups with fewer than 2 {drawn}: {', '.join(lonely)}; add {drawn} or leave them out")

    means = design.means(values)
    value = float(design.bias(means))
    null = design.bias(design.null(values, draws.n_perm, rng))
    floor = float(null.mean())
    # A resample of n items varies by (n - 1) / n as much as a sample does.
    errors = (design.bootstrap(values, draws.n_boot, rng) - means) * np.sqrt(sizes / (sizes - 1))
    calibration = calibrate(design.deviations(means), design.deviations(errors), draws.level)
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
        groups=tuple(_group(code, samples, design, protocol.threshold, draws.level) for code in range(len(sizes))),
        protocol=protocol,
        scorer=scorer,
        n_boot=draws.n_boot,
        n_perm=draws.n_perm,
    )
    return figures, calibration


def _group(code: int, samples: Floats, design: Design, threshold: float, level: float) -> GroupFigures:
    of_group = design.codes == code
    weights, above = design.weights[of_group], samples[of_group] > threshold
    above = above.reshape(len(weights), -1)
    share = float(weights @ above.sum(axis=1) / (weights.sum() * above.shape[1]))
    mean = t_interval(design.independent(_per_item(samples), code), level)
    return GroupFigures(design.names[code], len(weights), mean.mean, mean.interval, share)


def _group_change(before: GroupFigures, after: GroupFigures, moved: Floats, level: float) -> GroupChange:
    change = t_interval(moved, level)
    return GroupChange(before.name, before.mean, after.mean, change.mean, change.interval)


def _per_item(samples: Floats) -> Floats:
    return samples if samples.ndim == 1 else samples.mean(axis=1)
