"""Fitted surrogates behind the evaluators' protocol: every searcher runs on them unchanged."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fairmend.errors import InputError
from fairmend.evaluation import Figures, Measurement
from fairmend.masks import Mask, Space
from fairmend.records import plain
from fairmend.surrogates.families.forms import Floats
from fairmend.surrogates.fitting import FittedPair


class SurrogateEvaluator:
    """Predicts what the model would measure. The standard errors of its measurements are the surrogates' spreads.

    A perplexity too large for a float makes a measurement that is not finite, as a broken model does.

    Args:
        pair: the fitted surrogates.
        space: masks that may be predicted.
        figures: what the predicted measurements mean; their protocol is marked as predicted.
        boldness: spreads taken off bias and loss: 0 predicts the mean, 1 what is still plausible if all goes well.

    Raises:
        InputError: a space of another number of units.
    """

    def __init__(self, pair: FittedPair, space: Space, figures: Figures, *, boldness: float = 0.0) -> None:
        self.pair, self.boldness = pair, float(boldness)
        self._space = space
        self._figures = Figures(
            replace(figures.bias, protocol=f"predicted: {figures.bias.protocol}"),
            replace(figures.utility, protocol=f"predicted: {figures.utility.protocol}"),
        )
        learned = len(pair.bias.form().linear)
        if learned != space.n_units:
            raise InputError(f"surrogates of {learned} units cannot predict a space of {space.n_units} units")

    @property
    def space(self) -> Space:
        """The space whose masks can be predicted."""
        return self._space

    @property
    def figures(self) -> Figures:
        """What the predictions mean."""
        return self._figures

    def measure(self, masks: Sequence[Mask]) -> list[Measurement]:
        """One prediction per mask, in order.

        Raises:
            InputError: a mask whose dials do not stand at 0.
        """
        if not masks:
            return []
        for mask in masks:
            if any(mask.dials):
                raise InputError(
                    f"surrogates predict dropped units only, but dials stand at {mask.dials}: set them to 0"
                )
        dropped = np.array([mask.dropped() for mask in masks], dtype=np.float64)
        pair, columns = self.pair, []
        for predictor, scale in ((pair.bias, pair.bias_scale), (pair.loss, pair.loss_scale)):
            mean, spread = predictor.predict(dropped)
            figure = scale.figure(mean - self.boldness * spread)
            columns += [figure, _spread_of(figure, spread * scale.width, scale.log)]
        sign = 1.0 if self._figures.utility.better == "lower" else -1.0
        return [
            Measurement(bias, sign * loss, (), pair.n, bias_spread, loss_spread)
            for bias, bias_spread, loss, loss_spread in np.column_stack(columns).tolist()
        ]

    def fingerprint(self) -> Mapping[str, Any]:
        """The samples, the surrogates' settings and scales, and the boldness."""
        return {"surrogates": dict(self.pair.identity), "boldness": self.boldness, "space": plain(self._space)}


def _spread_of(figure: Floats, spread: Floats, log: bool) -> Floats:
    """The spread in the figure's own units; of a logarithm to first order."""
    if not log:
        return spread
    found: Floats = np.where(np.isfinite(figure), figure, math.nan) * spread
    return found
