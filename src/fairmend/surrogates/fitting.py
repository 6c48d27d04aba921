"""Both surrogates of a model, one for the bias and one for the loss of utility, fitted to measured masks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fairmend.errors import InputError
from fairmend.evaluation import Figures
from fairmend.surrogates.families.base import Dropped, FixedPredictor, Predictor, Surrogate
from fairmend.surrogates.families.forms import Floats
from fairmend.surrogates.families.networks import NeuralNetwork
from fairmend.surrogates.families.ridge import Ridge
from fairmend.surrogates.names import SURROGATE_NAMES
from fairmend.surrogates.samples import Samples, Scale, can_take_log, prior_of


def make_surrogate(given: str | Mapping[str, Any]) -> Surrogate:
    """The surrogate of a name, with its default options, or of its `settings()`.

    "network": Attention Pruning's, with our own layers. "additive": ridge on the dropped units, the baseline to beat.
    "pairwise": ridge on units and their pairs.

    Raises:
        InputError: an unknown name or option, or an option outside its range.
    """
    options: dict[str, Any] = {"name": given} if isinstance(given, str) else dict(given)
    name = options.pop("name", None)
    if name not in SURROGATE_NAMES:
        raise InputError(f"surrogate must be one of {', '.join(map(repr, SURROGATE_NAMES))}, got {name!r}")
    if name != "network":
        options["pairs"] = name == "pairwise"
    try:
        return NeuralNetwork(**options) if name == "network" else Ridge(**options)
    except TypeError as error:
        raise InputError(f"the {name} surrogate does not have the options {sorted(options)}: {error}") from error


@dataclass(frozen=True, eq=False, slots=True)
class FittedPair:
    """Predictors of bias and loss on their [0, 1] scales.

    Attributes:
        bias, loss: predictors of the scaled figures.
        bias_scale, loss_scale: lead back to the figures.
        n: number of masks that they learned from.
        identity: what they were fitted to and how, JSON-ready.
    """

    bias: Predictor
    loss: Predictor
    bias_scale: Scale
    loss_scale: Scale
    n: int
    identity: Mapping[str, Any]

    def predict(self, dropped: Dropped) -> tuple[Floats, Floats]:
        """Predicted bias and loss, each of shape (n_masks,), of masks of shape (n_masks, n_units)."""
        return (
            self.bias_scale.figure(self.bias.predict(dropped).mean),
            self.loss_scale.figure(self.loss.predict(dropped).mean),
        )

    def draw(self, rng: np.random.Generator, bias_width: float = 1.0, loss_width: float = 1.0) -> FittedPair:
        """A pair that the truth might be: one draw of either predictor.

        Args:
            rng: for the draws.
            bias_width, loss_width: how far to go from the mean to the draw: 1 is the draw, 0 the mean. Networks go all
                the way unless it is 0.
        """
        bias, loss = _towards_draw(self.bias, rng, bias_width), _towards_draw(self.loss, rng, loss_width)
        return FittedPair(bias, loss, self.bias_scale, self.loss_scale, self.n, {"drawn": [bias_width, loss_width]})


def _towards_draw(predictor: Predictor, rng: np.random.Generator, width: float) -> Predictor:
    """The way from a predictor's mean to a draw, gone in part."""
    if width == 0.0:
        return predictor
    drawn = predictor.draw(rng)
    start, end = predictor.form(), drawn.form()
    if drawn is predictor or width == 1.0 or start.layers or end.layers:
        return drawn
    return FixedPredictor(start.towards(end, width), predictor.noise)


def fit_pair(
    samples: Samples,
    figures: Figures,
    surrogate: Surrogate,
    *,
    log_loss: bool | None = None,
    prior: Mapping[str, npt.ArrayLike] | None = None,
    seed: int = 0,
) -> FittedPair:
    """Fit one surrogate to the bias and one to the loss, both scaled to [0, 1] over the samples.

    Args:
        samples: measured masks.
        figures: what the measurements mean.
        surrogate: of either figure.
        log_loss: whether the logarithm of the loss is learned; by default where lower is better and all is positive,
            as with perplexity, whose damage multiplies.
        prior: "bias" and "loss": believed effects of every unit, see `Surrogate.fit`.
        seed: of whatever is random.

    Raises:
        InputError: too few masks, a constant figure, or a logarithm of a loss that is not positive.
    """
    log = can_take_log(samples, figures) if log_loss is None else log_loss
    if log and not can_take_log(samples, figures):
        raise InputError(f"the {figures.utility.name} cannot be learned as a logarithm: it must be positive and lower")
    bias_scale, loss_scale = samples.scale("bias"), samples.scale("loss", log)
    fitted = [
        surrogate.fit(
            samples.dropped,
            scale.unit(samples.target(name)),
            scale.error(samples.noise(name), samples.target(name)),
            prior_of(prior, name),
            seed=seed,
        )
        for name, scale in (("bias", bias_scale), ("loss", loss_scale))
    ]
    identity = {
        "samples": samples.digest(),
        "surrogates": [dict(surrogate.settings())] * 2,
        "scales": [asdict(bias_scale), asdict(loss_scale)],
        "prior": {name: np.asarray(values).tolist() for name, values in (prior or {}).items()},
        "seed": seed,
    }
    return FittedPair(fitted[0], fitted[1], bias_scale, loss_scale, len(samples), identity)
