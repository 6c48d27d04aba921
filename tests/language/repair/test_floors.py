"""What a repair must keep: every floor alone decides, and what was not measured limits nothing."""

import math
from dataclasses import replace

import numpy as np
import pytest
from choice_cases import MIXED, choices_of
from tiny_lm import tiny_lm
from toy_scorer import text

from fairmend.evaluation import Measurement
from fairmend.language.measurement.evaluator import LanguageEvaluator
from fairmend.language.measurement.masked_perplexity import Reading
from fairmend.language.protocols import ReadingSettings
from fairmend.language.repair.floors import floors_of
from fairmend.language.repair.settings import RepairSettings

LM = tiny_lm()
KNOWLEDGE = choices_of(MIXED[:4])
EVALUATOR = LanguageEvaluator(
    LM,
    choices_of(MIXED),
    Reading(LM, text(), ReadingSettings(tokens=100, window=32, stride=32)),
    knowledge=KNOWLEDGE,
    drift=True,
)
SETTINGS = RepairSettings(keep_knowledge=0.9, max_drift=0.5, max_perplexity=1.1)
N_WINDOWS = len(EVALUATOR.reading.windows)


def measured(known: float, drift: float, perplexity: float = 100.0) -> Measurement:
    """Every item of knowledge is preferred by `known` nats, every token drifts by `drift`."""
    counts = np.array([window.stop - window.first for window in EVALUATOR.reading.windows])
    parts = (*[0.0] * len(MIXED), *[0.0] * N_WINDOWS, *[known] * len(KNOWLEDGE), *(drift * counts).tolist())
    return Measurement(bias=0.1, utility=perplexity, parts=parts, n=len(MIXED))


@pytest.mark.parametrize(
    ("known", "drift", "perplexity", "admitted"),
    [
        (2.0, 0.0, 100.0, True),
        (1.81, 0.49, 109.0, True),
        (1.79, 0.0, 100.0, False),
        (2.0, 0.51, 100.0, False),
        (2.0, 0.0, 111.0, False),
        (2.0, 0.0, math.nan, False),
        (math.nan, 0.0, 100.0, False),
        (2.0, math.nan, 100.0, False),
    ],
)
def test_each_limit_alone_decides(known: float, drift: float, perplexity: float, admitted: bool) -> None:
    floors = floors_of(EVALUATOR, measured(2.0, 0.0), SETTINGS)
    assert floors.admits(measured(known, drift, perplexity)) is admitted


def test_a_model_that_prefers_the_wrong_answers_has_no_knowledge_to_keep() -> None:
    floors = floors_of(EVALUATOR, measured(-1.0, 0.0), SETTINGS)
    assert floors.knowledge == -math.inf
    assert floors.admits(measured(-5.0, 0.0))


def test_what_is_not_asked_for_limits_nothing() -> None:
    floors = floors_of(EVALUATOR, measured(2.0, 0.0), replace(SETTINGS, keep_knowledge=None, max_drift=None))
    assert floors.admits(measured(-5.0, 9.0))
