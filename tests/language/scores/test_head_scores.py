"""The table of head scores: made, written, read, and honest about noise."""

import csv
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from choice_cases import MIXED, choices_of
from enumeration import WordScorer, prompts, sampling, toxicity
from hypothesis import given
from hypothesis import strategies as st
from tiny_lm import tiny_lm

from fairmend.errors import DataError, InputError
from fairmend.language.bias.bias import bias
from fairmend.language.bias.design import design_of
from fairmend.language.heads.gates import masked
from fairmend.language.measurement.answers import Preferences
from fairmend.language.measurement.perplexity import PerplexityProtocol, perplexity
from fairmend.language.measurement.texts import Text
from fairmend.language.models.models import LanguageModel
from fairmend.language.scores.ablation import masked_losses
from fairmend.language.scores.head_scores import BiasScores, HeadScores, LossScores, origin_of, score_heads
from fairmend.language.scores.reliability import Reliability, size_needed, split_reliability
from fairmend.language.scores.toxicity_by_mask import generated_toxicity

PROTOCOL = PerplexityProtocol("standard", 12, 11)


def text() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(4, 96, 100))


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return tiny_lm("llama-gqa", seed=11)


@pytest.fixture(scope="module")
def scores(lm: LanguageModel) -> HeadScores:
    return score_heads(
        *(lm, text(), PROTOCOL, [toxicity(lm, prompts(8), sampling(2))]), bias_method="reweighted", seed=1
    )


def test_generated_scores_are_the_bias_and_perplexity_of_the_masked_model(lm: LanguageModel) -> None:
    made = prompts(4)
    found = score_heads(lm, text(), PROTOCOL, [toxicity(lm, made)], bias_method="generated")
    for head in (1, 6):
        with masked(lm.model, lm.head_map.space().mask([head])):
            table = generated_toxicity(lm, made, WordScorer(), torch.ones(1, 8), sampling())
            naive = perplexity(lm, text(), "standard", 12, 11)
        assert found.axes[0].without[head] == pytest.approx(bias(table.before, design_of(made)), abs=1e-12)
        assert found.loss.without[head] == pytest.approx(naive.value, rel=1e-5)
    assert found.axis("toy").methods == ("generated",) * 8


@pytest.mark.parametrize("group_mean", ["unweighted", "pooled"])
def test_the_bias_before_is_that_of_the_sample(lm: LanguageModel, group_mean: Any) -> None:
    made = prompts(3).take(np.arange(14))
    found = score_heads(
        lm,
        text(),
        PROTOCOL,
        [toxicity(lm, made)],
        loss_method="first-order",
        group_mean=group_mean,
    )
    table = generated_toxicity(lm, made, WordScorer(), torch.ones(1, 8), sampling())
    assert found.axes[0].before == pytest.approx(bias(table.before, design_of(made, group_mean)))
    assert found.loss.methods == found.axes[0].methods == ("first-order",) * 8


def test_equal_seeds_give_equal_tables(lm: LanguageModel, scores: HeadScores, tmp_path: Path) -> None:
    again = score_heads(
        *(lm, text(), PROTOCOL, [toxicity(lm, prompts(8), sampling(2))]), bias_method="reweighted", seed=1
    )
    again.write(tmp_path / "again.csv")
    scores.write(tmp_path / "scores.csv")
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "scores.csv").read_bytes()


def test_a_table_is_read_back_as_it_was(scores: HeadScores, lm: LanguageModel, tmp_path: Path) -> None:
    scores.write(tmp_path / "scores.csv")
    back = HeadScores.read(tmp_path / "scores.csv")
    assert (back.modules, back.layers.tolist(), back.heads.tolist()) == (
        scores.modules,
        [0, 0, 0, 0, 1, 1, 1, 1],
        [0, 1, 2, 3, 0, 1, 2, 3],
    )
    for ours, theirs in zip((scores.loss, *scores.axes), (back.loss, *back.axes), strict=True):
        np.testing.assert_array_equal(ours.effect, theirs.effect)
        np.testing.assert_array_equal(ours.standard_error, theirs.standard_error)
        assert (ours.before, ours.methods) == (theirs.before, theirs.methods)
        assert ours.reliability == theirs.reliability
    assert back.axes[0].axis == "toy"
    back.check(lm.head_map)
    with pytest.raises(DataError, match="score the heads of this model"):
        back.check(tiny_lm("llama-gqa", num_hidden_layers=3).head_map)


def test_broken_heads_and_awkward_axis_names_survive_the_file(tmp_path: Path) -> None:
    effect = np.array([0.1, np.nan, -1e-17])
    unknown = Reliability(float("nan"), 3)
    table = HeadScores(
        ("a.0", "a.0", "a.1"),
        np.array([0, 0, 1]),
        np.array([0, 1, 0]),
        LossScores(12.5, effect, effect, ("masking",) * 3, Reliability(0.9, 4, "windows")),
        (BiasScores(0.2, effect, effect, ("generated",) * 3, unknown, 'age, "old" [x]'),),
    )
    table.write(tmp_path / "scores.csv")
    back = HeadScores.read(tmp_path / "scores.csv")
    np.testing.assert_array_equal(back.axis('age, "old" [x]').effect, effect)
    assert back.warnings == table.warnings
    assert len(back.warnings) == 1
    with pytest.raises(InputError, match="no scores for the axis 'race'"):
        back.axis("race")


def test_choices_have_items_and_their_scores_say_how_valid_they_are(lm: LanguageModel, tmp_path: Path) -> None:
    answers = Preferences(lm, choices_of(MIXED))
    found = score_heads(lm, text(), PROTOCOL, [answers])
    (axis,) = found.axes
    assert (axis.reliability.n, axis.reliability.unit) == (len(MIXED), "items")
    assert axis.validity is not None
    assert found.validity == (axis.validity,)
    assert (axis.validity.warning in found.warnings) == (axis.validity.warning is not None)
    found.write(tmp_path / "heads.csv")
    with (tmp_path / "heads.csv").open(newline="") as file:
        first = next(csv.DictReader(file))
    assert (first["bias_items[any]"], first["bias_validity_heads[any]"]) == ("8", "8")
    back = HeadScores.read(tmp_path / "heads.csv")
    assert back.axes[0].validity == axis.validity
    assert back.axes[0].reliability == axis.reliability
    assert score_heads(lm, text(), PROTOCOL, [answers], bias_method="generated").validity == ()


def _without_a_column(rows: list[list[str]]) -> list[list[str]]:
    return [row[:5] + row[6:] for row in rows]


@pytest.mark.parametrize(
    "damage",
    [
        _without_a_column,
        lambda rows: rows[:1],
        lambda rows: rows[:3] + rows[4:],
        lambda rows: [rows[0], *[[*row[:5], "many", *row[6:]] for row in rows[1:]]],
        lambda rows: [*rows[:-1], rows[-1][:4]],
    ],
)
def test_damaged_tables_are_refused(scores: HeadScores, tmp_path: Path, damage: Any) -> None:
    path = tmp_path / "scores.csv"
    scores.write(path)
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(damage(rows))
    with pytest.raises(DataError, match="no table of head scores"):
        HeadScores.read(path)


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.csv"):
        HeadScores.read(tmp_path / "nowhere.csv")


def test_unknown_methods_are_refused(lm: LanguageModel) -> None:
    wrong: Mapping[str, Any] = {"bias_method": "guessing"}
    with pytest.raises(InputError, match="bias_method must be one of generated, reweighted, first-order"):
        score_heads(lm, text(), PROTOCOL, [toxicity(lm, prompts(2))], **wrong)


def test_progress_tells_what_is_done(lm: LanguageModel) -> None:
    seen: list[tuple[str, int, int]] = []
    score_heads(
        lm,
        text(),
        PROTOCOL,
        [toxicity(lm, prompts(2))],
        bias_method="generated",
        progress=lambda *told: seen.append(told),
    )
    assert [told for told in seen if told[1] == told[2]] == [("bias, toy", 8, 8), ("perplexity", 72, 72)]


@given(reliability=st.floats(0.01, 0.99), n=st.integers(1, 10_000), target=st.floats(0.05, 0.95))
def test_the_prophecy_reaches_its_target(reliability: float, n: int, target: float) -> None:
    needed = size_needed(reliability, n, target)
    assert needed is not None
    times = needed / n
    assert times * reliability / (1 + (times - 1) * reliability) >= target - 1e-9
    fewer = (needed - 1) / n
    assert needed == 1 or fewer * reliability / (1 + (fewer - 1) * reliability) < target + 1e-9


def test_no_sample_size_is_promised_without_a_signal() -> None:
    assert size_needed(0.0, 100) is None
    assert size_needed(-0.3, 100) is None
    with pytest.raises(InputError, match="target strictly between 0 and 1"):
        size_needed(0.5, 100, 1.0)


def noisy(n: int, noise: float, seed: int) -> Reliability:
    """Reliability of 200 scores of variance 1, each a mean of n measurements with noise of this deviation."""
    rng = np.random.default_rng(seed)
    table = rng.standard_normal((200, 1)) + noise * rng.standard_normal((200, n))
    return split_reliability(lambda half: table[:, half].mean(axis=1), np.zeros(n), rng=rng)


def test_reliability_is_the_share_of_the_variance_that_repeats() -> None:
    for n, noise in ((10, 1.0), (100, 10.0), (40, 20.0)):
        found = np.mean([noisy(n, noise, seed).value for seed in range(4)])
        assert found == pytest.approx(1 / (1 + noise**2 / n), abs=0.08)


def test_the_warning_says_how_large_a_sample_is_needed() -> None:
    poor, good = noisy(40, 10.0, 0), noisy(40, 1.0, 0)
    assert poor.needed is not None
    assert poor.warning is not None
    assert f"about {poor.needed:,} would give 0.8" in poor.warning
    assert noisy(poor.needed, 10.0, 1).value == pytest.approx(0.8, abs=0.12)
    assert good.warning is None
    assert "too few, or no score differs" in str(noisy(3, 1.0, 0).warning)
    assert "no number can be told" in str(Reliability(-0.1, 50).warning)
    assert str(Reliability(0.25, 1_200)) == "0.25 (1,200 prompts)"
    assert str(Reliability(float("nan"), 3, "windows")) == "unknown (3 windows)"


def test_every_stratum_is_halved() -> None:
    strata = np.repeat([0, 1, 2], [5, 8, 21])

    def check(half: np.ndarray) -> np.ndarray:
        counts = np.bincount(strata[half], minlength=3)
        assert counts[0] in (2, 3)
        assert counts[1] == 4
        assert counts[2] in (10, 11)
        return np.array([half.sum(), half.max(), half.min()], dtype=float)

    split_reliability(check, strata, rng=np.random.default_rng(0))


def test_exact_losses_serve_without_any_prompt(lm: LanguageModel) -> None:
    found = score_heads(lm, text(), PROTOCOL, [])
    np.testing.assert_array_equal(found.loss.effect, masked_losses(lm, text(), PROTOCOL).effect)
    assert found.axes == ()


def test_scores_remember_what_they_are_of(lm: LanguageModel, scores: HeadScores, tmp_path: Path) -> None:
    read = Text("a text", "made for tests")
    origin = origin_of(lm, read, [prompts(8)])
    known = replace(scores, origin=origin)
    known.write(tmp_path / "heads.csv")
    again = HeadScores.read(tmp_path / "heads.csv")
    assert again.origin == origin
    assert again.digest() == known.digest() != scores.digest()
    again.require_origin(origin)
    scores.require_origin(origin)  # unknown origins pass
    with pytest.raises(DataError, match=r"prompts_sha256\[toy\] differ"):
        again.require_origin(origin_of(lm, read, [prompts(7)]))
    with pytest.raises(DataError, match="weights_sha256 differ"):
        again.require_origin(origin_of(tiny_lm("llama-gqa", seed=1), read, [prompts(8)]))
