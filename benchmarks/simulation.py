"""A simulated language model whose truth is known: every head's effect is given, and heads interact in groups.

It serves tests and benchmarks that ask how far a search is from the best mask, which no real model can answer.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fairmend.errors import InputError
from fairmend.evaluation import Figure, Figures, Measurement, array_digest
from fairmend.masks import Mask, Site, Space

Floats = npt.NDArray[np.float64]
FIGURES = Figures(Figure("bias", "lower", "simulated"), Figure("perplexity", "lower", "simulated"))

# What a group of heads does beyond its members, by how many of them are dropped: the first loss is made up for by the
# others, the second and third are not, and what is gone cannot be lost again.
_JOINT = np.array([0.0, 0.0, 1.0, 2.0, 2.5, 2.5, 2.5])
_GROUP = len(_JOINT) - 1
_ADDITIVITY = {0.05: 0.93, 0.10: 0.69, 0.20: 0.65}
_CRITICAL = 0.3
_COLLAPSE = math.log(2.0)


class SimulatedModel:
    """An evaluator with single-head effects as given, interactions of the measured size, and measurement noise.

    Bias and log-perplexity are built on sums of the single effects and of joint effects of groups of heads. A group's
    joint effect has the size of its members' own effects: heads that matter interact more. Joint effects are as strong
    as makes the sum of single effects correlate with the truth as measured on a real model (.93, .69 and .65 over
    random subsets of 5, 10 and 20 % of the heads; the strength fits the three in the mean). The subsets leave out the
    30 % most critical heads, whose own damage would hide everything else. On the perplexity joint effects only do harm.
    The bias falls to 0 only in the limit. A model whose perplexity has more than doubled babbles, and the more it
    babbles the less biased it is. Noise belongs to the mask and the seed.

    Args:
        bias_effects, loss_effects: (n_heads,) change of the bias, and of the logarithm of the perplexity, when the
            head alone is dropped.
        bias, perplexity: of the untouched model.
        max_drop: most heads of a mask.
        seed: of the groups and their effects.
        noise_seed: of the noise.
        bias_noise, loss_noise: standard deviation of one measurement of the bias and of the log-perplexity.

    Raises:
        InputError: effects that do not fit, or fewer heads than a group has.
    """

    def __init__(
        self,
        bias_effects: npt.ArrayLike,
        loss_effects: npt.ArrayLike,
        *,
        bias: float = 0.4,
        perplexity: float = 40.0,
        max_drop: int | None = None,
        seed: int = 0,
        noise_seed: int = 0,
        bias_noise: float = 0.024,
        loss_noise: float = 0.01,
    ) -> None:
        effects = [np.asarray(values, dtype=np.float64) for values in (bias_effects, loss_effects)]
        n_heads = len(effects[0])
        if effects[0].shape != (n_heads,) or effects[1].shape != (n_heads,) or n_heads <= _GROUP:
            raise InputError(
                f"a simulated model needs the effects of more than {_GROUP} heads on bias and loss, got arrays of "
                f"shapes {effects[0].shape} and {effects[1].shape}"
            )
        self._effects = effects
        self._base = (float(bias), math.log(perplexity))
        self._noise_sds, self._noise_seed, self._seed = (bias_noise, loss_noise), noise_seed, seed
        self._space = Space((Site("heads", n_heads),), max_drop=max_drop)
        rng = np.random.default_rng(seed)
        self._groups = np.array([rng.choice(n_heads, _GROUP, replace=False) for _ in range(2 * n_heads)])
        trial = self._trial_masks(rng)
        self._joint = []
        for effect, only_harm in zip(effects, (False, True), strict=True):
            sizes = np.exp(np.log(np.maximum(np.abs(effect), 1e-6))[self._groups].mean(axis=1))
            luck = rng.standard_normal(len(sizes))
            strength = sizes * (np.abs(luck) if only_harm else luck)
            self._joint.append(strength * self._fitting_factor(effect, strength, trial))

    @property
    def space(self) -> Space:
        """The heads."""
        return self._space

    @property
    def figures(self) -> Figures:
        """Simulated bias and perplexity."""
        return FIGURES

    def measure(self, masks: Sequence[Mask]) -> list[Measurement]:
        """One noisy measurement per mask, in order; the noise is also its standard error."""
        return [self._noisy(mask, true) for mask, true in zip(masks, self.truth(masks), strict=True)]

    def truth(self, masks: Sequence[Mask]) -> list[Measurement]:
        """One measurement without noise per mask, in order."""
        if not masks:
            return []
        bias, loss = self.true_figures(np.array([mask.dropped() for mask in masks], dtype=np.float64))
        return [
            Measurement(b, ppl, bias_se=0.0, utility_se=0.0)
            for b, ppl in zip(bias.tolist(), np.exp(loss).tolist(), strict=True)
        ]

    def true_figures(self, dropped: Floats) -> tuple[Floats, Floats]:
        """True bias and log-perplexity of masks of shape (n_masks, n_heads), each of shape (n_masks,)."""
        joint = _JOINT[dropped[:, self._groups].sum(axis=2).astype(np.int64)]
        raw = [
            base + dropped @ effect + joint @ strength
            for base, effect, strength in zip(self._base, self._effects, self._joint, strict=True)
        ]
        babble = np.maximum(raw[1] - self._base[1] - _COLLAPSE, 0.0)
        bias = np.where(raw[0] < self._base[0], self._base[0] * np.exp(raw[0] / self._base[0] - 1.0), raw[0])
        return bias * np.exp(-0.5 * babble), raw[1]

    def fingerprint(self) -> Mapping[str, Any]:
        """Effects, joint effects and noise."""
        return {
            "simulated": array_digest(*self._effects, self._groups, *self._joint),
            "base": list(self._base),
            "noise": list(self._noise_sds),
            "noise_seed": self._noise_seed,
        }

    def _noisy(self, mask: Mask, true: Measurement) -> Measurement:
        key = int.from_bytes(hashlib.sha256(mask.packed()).digest()[:16], "little")
        luck = np.random.default_rng([self._noise_seed, key]).standard_normal(2)
        bias_sd, loss_sd = self._noise_sds
        utility = true.utility * math.exp(loss_sd * float(luck[1]))
        return Measurement(
            max(0.0, true.bias + bias_sd * float(luck[0])), utility, bias_se=bias_sd, utility_se=loss_sd * utility
        )

    def _fitting_factor(self, effect: Floats, strength: Floats, trial: dict[float, Floats]) -> float:
        """The factor on joint effects with which additivity comes nearest to the measured one."""
        parts = [
            (masks @ effect, _JOINT[masks[:, self._groups].sum(axis=2).astype(np.int64)] @ strength, wanted)
            for (_, masks), wanted in zip(trial.items(), _ADDITIVITY.values(), strict=True)
        ]

        def miss(factor: float) -> float:
            return sum((_correlation(a, a + factor * b) - wanted) ** 2 for a, b, wanted in parts)

        joint = [b.std() for _, b, _ in parts if b.std() > 0]
        typical = float(np.mean([a.std() for a, _, _ in parts]) / np.mean(joint)) if joint else 1.0
        return float(min(typical * np.geomspace(0.01, 100.0, 200), key=miss))

    def _trial_masks(self, rng: np.random.Generator, count: int = 400) -> dict[float, Floats]:
        """Random masks (n_masks, n_heads) of uncritical heads, for each share of all heads in `_ADDITIVITY`."""
        n_heads = len(self._effects[1])
        uncritical = np.argsort(self._effects[1], kind="stable")[: n_heads - int(_CRITICAL * n_heads)]
        found = {}
        for share in _ADDITIVITY:
            masks = np.zeros((count, n_heads))
            for row in masks:
                row[rng.choice(uncritical, max(1, round(share * n_heads)), replace=False)] = 1.0
            found[share] = masks
        return found


def _correlation(first: Floats, second: Floats) -> float:
    """Pearson's correlation; 0 where one of the two is constant, as all effects of too few heads may be."""
    if first.std() == 0 or second.std() == 0:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])
