"""Surrogates: models that predict the measurements of masks, behind the evaluators' protocol.

Fit a pair to measured masks (`Samples.of`, `fit_pair`), judge it (`cross_validate`), search on it (`anneal`, or any
searcher on a `SurrogateEvaluator`). `AttentionPruning` and `Active` do all of that as searchers, so that a runner
measures, stores and resumes them like any other.
"""

from fairmend.settings import SURROGATE_NAMES, SurrogateName
from fairmend.surrogates.active import Active
from fairmend.surrogates.annealing import Annealed, anneal
from fairmend.surrogates.attention_pruning import AttentionPruning, published_cost
from fairmend.surrogates.evaluator import SurrogateEvaluator
from fairmend.surrogates.families.base import Prediction, Predictor, Surrogate
from fairmend.surrogates.families.networks import NeuralNetwork
from fairmend.surrogates.families.ridge import Ridge
from fairmend.surrogates.fitting import FittedPair, fit_pair, make_surrogate
from fairmend.surrogates.objectives import FlooredSum, floored_sum
from fairmend.surrogates.proposals import ProposalSettings, propose
from fairmend.surrogates.samples import Samples, Scale
from fairmend.surrogates.validation import (
    PUBLISHED_MSE,
    HeldOutScore,
    MeasurementNoise,
    cross_validate,
    noise_from_repeats,
)

__all__ = [
    "PUBLISHED_MSE",
    "SURROGATE_NAMES",
    "Active",
    "Annealed",
    "AttentionPruning",
    "FittedPair",
    "FlooredSum",
    "HeldOutScore",
    "MeasurementNoise",
    "NeuralNetwork",
    "Prediction",
    "Predictor",
    "ProposalSettings",
    "Ridge",
    "Samples",
    "Scale",
    "Surrogate",
    "SurrogateEvaluator",
    "SurrogateName",
    "anneal",
    "cross_validate",
    "fit_pair",
    "floored_sum",
    "make_surrogate",
    "noise_from_repeats",
    "propose",
    "published_cost",
]
