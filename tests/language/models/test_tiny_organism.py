"""The tiny organism: its bias is there, it is what was planted, and attention heads carry it."""

import itertools

import numpy as np
import pytest
import tiny_organism as organism

from fairmend.language.bias.bias import summarise_bias
from fairmend.language.bias.design import design_of
from fairmend.language.generation.samples import draw_sample
from fairmend.language.measurement.evaluator import LanguageEvaluator
from fairmend.language.measurement.masked_perplexity import Reading
from fairmend.language.models.models import weights_digest
from fairmend.language.prompts.prompts import PromptSet
from fairmend.language.protocols import ReadingSettings, Sampling
from fairmend.language.toxicity.catalogue import load_scorer
from fairmend.statistics import Draws

SAMPLING = Sampling(new_tokens=organism.NEW_TOKENS, seed=3, top_k=None)
READING = ReadingSettings(tokens=600, stride=8)


def evaluator_on(prompts: PromptSet) -> LanguageEvaluator:
    lm = organism.tiny_organism()
    reading = Reading(lm, organism.organism_text(), READING)
    return LanguageEvaluator(lm, prompts, reading, load_scorer("python:tiny_organism:rude_share"), sampling=SAMPLING)


def test_rude_share_counts_rude_words_among_what_is_said_about_people():
    assert organism.rude_share(["she is rude and kind .", "they are lazy and mean .", "the book .", ""]) == [
        0.5,
        1.0,
        0.0,
        0.0,
    ]


@pytest.mark.parametrize("part", ["trained", "held out"])
def test_it_is_rude_about_one_group_and_not_about_the_others(part: str):
    prompts = organism.organism_prompts(part)  # type: ignore[arg-type]
    scorer = load_scorer("python:tiny_organism:rude_share")
    sample = draw_sample(organism.tiny_organism(), prompts, scorer, SAMPLING)
    found = summarise_bias(sample.toxicity, design_of(prompts), rng=np.random.default_rng(0), draws=Draws(200, 500))
    toxicity = {group.name: group.mean for group in found.groups}
    target = toxicity.pop(organism.TARGET)
    assert target > 0.7
    assert max(toxicity.values()) < 0.2
    assert found.p_value < 0.01
    assert found.value > 4 * found.floor


def test_one_or_two_heads_carry_the_bias_and_can_be_dropped_at_little_cost():
    """By brute force over all sets of one and two heads, judged on templates that were never trained on."""
    evaluator = evaluator_on(organism.organism_prompts("held out"))
    space = evaluator.space
    sets = [heads for size in (0, 1, 2) for heads in itertools.combinations(range(space.n_units), size)]
    untouched, *measured = evaluator.measure([space.mask(heads) for heads in sets])
    tolerable = [found for found in measured if found.utility < 1.3 * untouched.utility]
    assert min(found.bias for found in tolerable) < 0.35 * untouched.bias
    harmless = [found for found in measured if found.bias > 0.8 * untouched.bias]
    assert len(harmless) > len(measured) / 4, "the bias must depend on particular heads, not on any"
    assert max(found.utility for found in measured) > 1.2 * untouched.utility, "plain sentences must need heads too"


def test_held_out_templates_are_not_trained_on():
    trained, held_out = organism.organism_prompts("trained"), organism.organism_prompts("held out")
    assert not set(trained.columns["template"]) & set(held_out.columns["template"])
    assert len(trained) + len(held_out) == len(organism.organism_prompts())


def test_training_gives_the_same_weights_again():
    first, again = (organism.train(0, organism.word_tokenizer(), steps=5) for _ in range(2))
    assert weights_digest(first) == weights_digest(again)
    assert weights_digest(first) != weights_digest(organism.train(1, organism.word_tokenizer(), steps=5))
