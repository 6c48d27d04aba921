"""First order proposes, ablation decides: against ablating every head by hand."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from enumeration import prompts, sampling, toxicity
from scipy.stats import spearmanr
from tiny_lm import tiny_lm

from fairmend.errors import InputError
from fairmend.language.heads.gates import masked
from fairmend.language.measurement.perplexity import PerplexityProtocol, perplexity
from fairmend.language.models.models import LanguageModel
from fairmend.language.scores.ablation import MaskLosses
from fairmend.language.scores.first_order import first_order_losses
from fairmend.language.scores.head_scores import HeadScores, score_heads
from fairmend.language.scores.screening import screened_losses
from fairmend.runs.store import Section, Store
from fairmend.search import PruningRule

PROTOCOL = PerplexityProtocol("standard", 12, 11)
RULES = [PruningRule("fasp", alpha, 0.25, loss_weight=weight) for alpha in (0.2, 0.45) for weight in (0.0, 1.0)]


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return tiny_lm("llama-mha", num_hidden_layers=5, seed=11)


def text() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(4, 96, 56))


@pytest.fixture(scope="module")
def exact(lm: LanguageModel) -> np.ndarray:
    """What the mean loss gains without each head, by masked runs of the whole model."""

    def loss(*heads: int) -> float:
        with masked(lm.model, lm.head_map.space().mask(heads)):
            return float(np.log(perplexity(lm, text(), "standard", 12, 11).value))

    return np.array([loss(head) for head in range(20)]) - loss()


def score(lm: LanguageModel, store: Section | None = None, rules: list[PruningRule] = RULES) -> HeadScores:
    axes = prompts(4), replace(prompts(3), axis="other")
    return score_heads(
        *(lm, text(), PROTOCOL, [toxicity(lm, made, sampling(2)) for made in axes]),
        loss_method="screened",
        rules=rules,
        store=store,
    )


def test_no_set_drops_a_head_whose_loss_is_an_estimate(lm: LanguageModel, exact: np.ndarray) -> None:
    found = score(lm)
    known = np.array([method == "layer resume" for method in found.loss.methods])
    dropped = {
        head
        for rule in RULES
        for axis in found.axes
        for head in rule.choose({"loss": found.loss.without, "bias": axis.without}, 20)
    }
    assert len(dropped) >= 9
    assert known[sorted(dropped)].all()
    assert not known.all()
    assert set(found.loss.methods) == {"layer resume", "first-order"}
    np.testing.assert_allclose(found.loss.effect[known], exact[known], atol=2e-6)


def test_estimates_are_first_order_and_shifted_by_what_ablation_found(lm: LanguageModel, exact: np.ndarray) -> None:
    found = score(lm)
    known = np.array([method == "layer resume" for method in found.loss.methods])
    estimate = first_order_losses(lm, text(), PROTOCOL).effect
    shift = np.median(exact[known] - estimate[known])
    np.testing.assert_allclose(found.loss.effect[~known], estimate[~known] + shift, atol=2e-6)
    validity = found.loss.validity
    assert validity is not None
    assert validity.n == known.sum()
    assert validity.value == pytest.approx(spearmanr(exact[known], estimate[known]).statistic)


def test_a_critical_head_that_first_order_misses_is_spared(lm: LanguageModel, exact: np.ndarray) -> None:
    worst = int(exact.argmax())
    asked: list[list[int]] = []

    def dropped(losses: MaskLosses) -> list[int]:
        asked.append([worst] if losses.effect[worst] < exact[worst] * 0.999 else [int(losses.effect.argmin())])
        return asked[-1]

    losses = screened_losses(lm, text(), PROTOCOL, dropped)
    assert asked[0] == [worst]
    assert worst not in asked[-1]
    assert losses.ablated[asked[-1]].all()
    assert losses.ablated.sum() == len({head for heads in asked for head in heads})


def test_nothing_is_ablated_when_nothing_is_dropped(lm: LanguageModel) -> None:
    nothing: Callable[[MaskLosses], list[int]] = lambda losses: []  # noqa: E731
    losses = screened_losses(lm, text(), PROTOCOL, nothing)
    np.testing.assert_array_equal(losses.without, first_order_losses(lm, text(), PROTOCOL).without)
    assert losses.methods == ("first-order",) * 20
    assert np.isnan(losses.validity.value)


def test_screened_scores_need_rules_and_survive_the_file(lm: LanguageModel, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give rules"):
        score(lm, rules=[])
    found = score(lm)
    found.write(tmp_path / "heads.csv")
    back = HeadScores.read(tmp_path / "heads.csv")
    assert (back.loss.methods, back.loss.validity) == (found.loss.methods, found.loss.validity)


def test_an_interrupted_screening_goes_on(lm: LanguageModel, tmp_path: Path) -> None:
    class Struck(Section):
        def __init__(self, store: Store, left: int) -> None:
            super().__init__(store, "scores")
            self.left = left

        def record(self, kind: str, payload: object) -> int:  # type: ignore[override]
            if not self.left:
                raise KeyboardInterrupt
            self.left -= 1
            return super().record(kind, payload)  # type: ignore[arg-type]

    whole = score(lm)
    with Store.create(tmp_path / "run.sqlite", {}) as store:
        strikes = 0
        while True:
            try:
                again = score(lm, Struck(store, 3))
                break
            except KeyboardInterrupt:
                strikes += 1
    assert strikes > 2
    np.testing.assert_array_equal(again.loss.effect, whole.loss.effect)
    assert again.loss.methods == whole.loss.methods
