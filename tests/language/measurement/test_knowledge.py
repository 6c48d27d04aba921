"""What a model knows, by hand, and the floor that a repair must keep."""

import numpy as np
import pytest
from tiny_pronouns import BIAS_HEAD, KNOWLEDGE_HEAD, pronoun_organism

from fairmend.language import RepairSettings
from fairmend.language.measurement.evaluator import LanguageEvaluator
from fairmend.language.measurement.knowledge import knowledge_change, summarise_knowledge
from fairmend.language.measurement.masked_perplexity import Reading
from fairmend.language.prompts.choices import ChoiceSet, choice_set
from fairmend.language.protocols import ReadingSettings
from fairmend.language.repair.floors import floors_of


def items(weights: list[float] | None = None) -> ChoiceSet:
    groups = ["female", "female", "female", "male"]
    texts = [f"the {number}" for number in range(4)]
    return choice_set(
        *(texts, [(" she",)] * 4, [(" he",)] * 4, groups),
        **{"axis": "gender", "source": "made", "licence": "none", "compared": "zero", "weights": weights},
    )


def test_every_group_weighs_alike_whatever_its_size():
    found = summarise_knowledge(items(), np.array([3.0, 2.0, -1.0, -2.0]))
    assert found.mean == pytest.approx((4 / 3 - 2) / 2)
    assert found.accuracy == pytest.approx((2 / 3 + 0) / 2)
    assert (found.n, found.source) == (4, "made")
    assert np.isnan(found.standard_error)  # one item tells no spread


def test_weights_count_within_their_group():
    found = summarise_knowledge(items([1.0, 1.0, 2.0, 5.0]), np.array([4.0, 0.0, 1.0, 3.0]))
    assert found.mean == pytest.approx((6 / 4 + 3) / 2)
    assert found.accuracy == pytest.approx((3 / 4 + 1) / 2)


def test_the_error_of_the_mean_and_of_what_is_kept_are_those_of_drawing_again():
    rng = np.random.default_rng(0)
    groups = ["x", "y"] * 40
    known = choice_set(
        *([f"the {number}" for number in range(80)], [(" she",)] * 80, [(" he",)] * 80, groups),
        **{"axis": "gender", "source": "made", "licence": "none", "compared": "zero"},
    )
    draws = 2 + rng.standard_normal((1500, 80))
    lost = 0.7 * draws + 0.3 * rng.standard_normal(draws.shape)
    found = knowledge_change(known, draws[0], lost[0])
    means, kept = draws.mean(axis=1), lost.mean(axis=1) / draws.mean(axis=1)
    assert found.before.standard_error == pytest.approx(means.std(), rel=0.25)
    assert found.kept == pytest.approx(kept[0])
    assert found.interval.high - found.interval.low == pytest.approx(2 * 1.96 * kept.std(), rel=0.25)


def test_a_floor_admits_what_keeps_the_knowledge_and_the_words():
    organism = pronoun_organism("separate")
    lm, reading = organism.lm, ReadingSettings(tokens=300, window=16, stride=8)
    evaluator = LanguageEvaluator(
        lm, organism.bias, Reading(lm, organism.texts[0], reading), knowledge=organism.knowledge, drift=True
    )
    space = evaluator.space
    untouched, fair, ignorant = evaluator.measure(
        [space.untouched(), space.mask([BIAS_HEAD]), space.mask([KNOWLEDGE_HEAD])]
    )
    floors = floors_of(evaluator, untouched, RepairSettings(keep_knowledge=0.9, max_perplexity=None))
    assert floors.admits(untouched)
    assert floors.admits(fair)
    assert not floors.admits(ignorant)
    assert floors_of(evaluator, untouched, RepairSettings(keep_knowledge=None, max_perplexity=None)).admits(ignorant)
    strict = floors_of(evaluator, untouched, RepairSettings(keep_knowledge=None, max_perplexity=None, max_drift=1e-9))
    assert strict.admits(untouched)
    assert not strict.admits(ignorant)


def test_an_evaluator_on_other_items_measures_the_same_things():
    organism = pronoun_organism("separate")
    lm = organism.lm
    reading = Reading(lm, organism.texts[0], ReadingSettings(tokens=300, window=16, stride=8))
    evaluator = LanguageEvaluator(lm, organism.bias, reading, knowledge=organism.knowledge, drift=True)
    other = evaluator.on(organism.bias.take(np.arange(0, len(organism.bias), 2)), reading)
    assert other.has_drift
    assert other.knowledge is organism.knowledge
