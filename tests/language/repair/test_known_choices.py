"""Repairs of choices whose right answer is known: which head carries the bias and which the knowledge.

In one organism they are separate heads, so that the bias can go whole. In the other the head of the knowledge carries a
part of the bias: that part has to stay, and FASP as published takes the knowledge with it.
"""

from typing import Any

import pytest
from tiny_pronouns import BIAS_HEAD, KNOWLEDGE_HEAD, SHARED_PART, Kind, pronoun_organism

from fairmend.language import RepairSettings, repair_model
from fairmend.language.heads.heads import gains_of
from fairmend.language.protocols import ReadingSettings
from fairmend.language.repair.repair import Repair
from fairmend.language.repair.settings import SoftGates
from fairmend.language.repair.subject import Subject

ONE, TWO = 1 / 8, 2 / 8  # of the heads

SPARING = {"keep_knowledge": 0.9, "spare_knowledge": 0.2}
PUBLISHED = {"keep_knowledge": None, "spare_knowledge": 0.0, "choice": "rule"}


def repair(kind: Kind, **options: Any) -> Repair:
    found = pronoun_organism(kind)
    settings = RepairSettings(
        **{
            "reading": ReadingSettings(tokens=600, window=16, stride=8),
            "scoring_tokens": None,
            "soft": SoftGates(tokens=600, units="heads"),
            "loss_scores": "exact",
            "prompts": None,
            "seed": 1,
            **options,
        }
    )
    subject = Subject(found.lm, prompts=found.bias, knowledge=found.knowledge, texts=found.texts)
    return repair_model(subject, settings)


def removed(found: Repair) -> float:
    """Share of the held-out bias that is gone."""
    change = found.held_out.main.change  # type: ignore[union-attr]
    assert change is not None
    return -change.change / change.before.value


def kept(found: Repair) -> float:
    """Share of the held-out knowledge that is left."""
    knowledge = found.held_out.knowledge  # type: ignore[union-attr]
    assert knowledge is not None
    return knowledge.kept


def perplexity_ratio(found: Repair) -> float:
    ratio: float = found.held_out.perplexity.ratio  # type: ignore[union-attr]
    return ratio


@pytest.mark.parametrize("choice", ["measured", "rule"])
def test_fasp_sparing_knowledge_drops_the_head_of_the_bias_alone(choice: str):
    found = repair("separate", method="fasp", alpha=ONE, choice=choice, **SPARING)
    assert found.mask.units() == (BIAS_HEAD,)
    assert removed(found) > 0.9
    assert kept(found) > 0.9
    assert perplexity_ratio(found) < 1.05
    assert found.held_out.main.change.interval.high < 0  # type: ignore[union-attr]


def test_fasp_as_published_is_caught_taking_the_knowledge():
    """The bias is gone, as it says; that the knowledge is gone too stands beside it."""
    found = repair("shared", method="fasp", alpha=TWO, **PUBLISHED)
    assert found.mask.units() == (BIAS_HEAD, KNOWLEDGE_HEAD)
    assert removed(found) > 0.9
    assert abs(kept(found)) < 0.1
    assert found.held_out.knowledge.after.accuracy < 0.8  # type: ignore[union-attr]
    assert found.held_out.knowledge.before.accuracy == pytest.approx(1)  # type: ignore[union-attr]


def test_fasp_sparing_knowledge_leaves_the_shared_head():
    found = repair("shared", method="fasp", alpha=TWO, choice="rule", **SPARING)
    assert BIAS_HEAD in found.mask.units()
    assert KNOWLEDGE_HEAD not in found.mask.units()
    assert removed(found) > 0.8 * (1 - SHARED_PART)
    assert kept(found) > 0.8


def test_the_floor_alone_keeps_the_shared_head():
    """Without heads being spared: a set that takes the knowledge is measured, and not chosen."""
    found = repair("shared", method="fasp", alpha=TWO, keep_knowledge=0.9, spare_knowledge=0.0)
    assert any(KNOWLEDGE_HEAD in finalist.mask.units() for finalist in found.finalists)
    assert KNOWLEDGE_HEAD not in found.mask.units()
    assert found.feasible
    assert removed(found) > 0.8 * (1 - SHARED_PART)
    assert kept(found) > 0.85


def test_soft_gates_turn_the_head_of_the_bias_off_and_keep_the_knowledge():
    found = repair("separate", method="soft", **SPARING)
    gains = gains_of(found.mask)
    assert gains[BIAS_HEAD] == gains.min() < 0.25
    assert gains[KNOWLEDGE_HEAD] > 0.8
    assert removed(found) > 0.75
    assert kept(found) > 0.9
    assert perplexity_ratio(found) < 1.05


def test_soft_gates_take_of_a_shared_head_what_the_knowledge_can_spare():
    found = repair("shared", method="soft", **SPARING)
    gains = gains_of(found.mask)
    assert gains[BIAS_HEAD] < 0.5
    assert gains[KNOWLEDGE_HEAD] > 0.6
    assert removed(found) > 0.8 * (1 - SHARED_PART)
    assert kept(found) > 0.85
    assert perplexity_ratio(found) < 1.1


@pytest.mark.parametrize("kind", ["separate", "shared"])
def test_gains_of_all_units_take_the_bias_and_keep_the_knowledge(kind: Kind):
    found = repair(kind, method="soft", soft=SoftGates(tokens=600, units="all"), **SPARING)
    assert found.mask.n_units > pronoun_organism(kind).lm.head_map.n_heads
    assert found.feasible
    assert removed(found) > 0.75 * (1 if kind == "separate" else 1 - SHARED_PART)
    assert kept(found) > 0.85
    assert perplexity_ratio(found) < 1.1
