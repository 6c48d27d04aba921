"""Whole repairs at an equal number of generated tokens: the budget is kept, the judging is shared, runs are resumed."""

from dataclasses import replace
from typing import Any

import pytest
import tiny_organism as organism
from subset_cases import SETTINGS, Stopping, rude, subject

from fairmend.errors import InputError
from fairmend.language.records.run_directories import open_run
from fairmend.language.repair.subject import Subject, halves
from fairmend.language.repair.subset_search import subset_prompts
from fairmend.language.studies.equal_cost import (
    CostComparison,
    EqualCostSettings,
    compare_at_equal_cost,
    plan_repair,
)
from fairmend.records import built, plain
from fairmend.runs import Store

TOKENS = 9_000
COMPARED = EqualCostSettings(
    methods=("fasp", "active", "random"), tokens=TOKENS, seeds=2, shared=replace(SETTINGS, alpha=0.4)
)


def compared(settings: EqualCostSettings = COMPARED, **given: Any) -> CostComparison:
    return compare_at_equal_cost(subject(given.pop("scorer", None)), settings, **given)


def searching() -> Subject:
    """All that may be searched with."""
    prompts, _ = halves(organism.organism_prompts(), replace(SETTINGS, prompts=None))
    return replace(subject(), prompts=prompts)


def started(out: Any) -> Store:
    return open_run(out, subject(), COMPARED, kind=COMPARED.kind)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[CostComparison, dict[str, int]]:
    with started(tmp_path_factory.mktemp("cost") / "out") as store:
        found = compared(store=store)
        return found, {name: len(store.context(name)) for name in store.contexts()}


def test_every_method_is_repaired_with_every_seed_and_judged_on_the_same_prompts(whole):
    found, _ = whole
    assert [(row.method, row.seed) for row in found.rows] == [
        (method, seed) for method in COMPARED.methods for seed in (2, 3)
    ]
    changes = [row.judgement.main.change for row in found.rows]
    assert {change.before.value for change in changes} == {found.untouched.main.change.before.value}
    assert {change.before.n for change in changes} == {len(found.judge.prompts)}
    seen = set(found.search_prompts.texts)
    assert not seen & set(found.judge.prompts.texts)


def test_nobody_generates_more_than_allowed(whole):
    found, counts = whole
    length, n_groups = SETTINGS.sampling.new_tokens, len(found.judge.prompts.group_names)
    for row in found.rows:
        name = f"{row.method}, seed {row.seed}"
        sizes = {"search": row.prompts, "subsets": subset_prompts(SETTINGS.subsets, row.prompts, n_groups)}
        scored = 0 if row.method == "random" else row.prompts * SETTINGS.scoring_samples
        made = scored + sum(counts.get(f"{name}: {part}", 0) * size for part, size in sizes.items())
        assert 0 < made * length <= row.tokens <= TOKENS, name
        assert row.method != "random" or row.tokens > 0.9 * TOKENS or row.prompts == len(found.search_prompts)


def test_a_stopped_comparison_goes_on_with_the_same_answer(tmp_path, whole):
    found, counts = whole
    for after in (300, 600, 900):
        with started(tmp_path / "out") as store, pytest.raises(KeyboardInterrupt):
            compared(store=store, scorer=Stopping(rude(), after))
    with started(tmp_path / "out") as store:
        again = compared(store=store)
        assert {name: len(store.context(name)) for name in store.contexts()} == counts
    assert [row.mask for row in again.rows] == [row.mask for row in found.rows]
    assert again.tables()[0].csv() == found.tables()[0].csv()


def test_means_are_those_of_the_seeds(whole):
    found, _ = whole
    for one in found.means():
        rows = [row for row in found.rows if row.method == one.method]
        assert one.times.mean == pytest.approx(sum(row.judgement.perplexity.ratio for row in rows) / 2)
        assert one.change.mean == pytest.approx(sum(row.judgement.main.change.change for row in rows) / 2)
        assert one.broken == 0


def test_rankings_spend_more_tokens_on_prompts_and_searches_on_subsets():
    searched = searching()
    for method in ("fasp", "active"):
        small, large = (plan_repair(SETTINGS, method, 0, tokens, searched) for tokens in (6_000, 9_000))
        assert small.tokens <= 6_000 < large.tokens <= 9_000
        if method == "fasp":
            assert small.settings.prompts < large.settings.prompts
        else:
            assert small.settings.prompts == large.settings.prompts
            assert small.settings.subsets.samples < large.settings.subsets.samples


@pytest.mark.parametrize("method", ["fasp", "attention-pruning", "genetic", "magnitude"])
def test_too_few_tokens_are_refused_with_the_number_that_would_do(method):
    searched = searching()
    with pytest.raises(InputError, match=r"needs [\d,]+") as refused:
        plan_repair(SETTINGS, method, 0, 10, searched)
    least = int(str(refused.value).split("needs ")[1].split(":")[0].replace(",", ""))
    assert plan_repair(SETTINGS, method, 0, least, searched).tokens == least


def test_toxicity_has_no_gradient_for_soft_gates():
    with pytest.raises(InputError, match="compare it with --bias"):
        plan_repair(SETTINGS, "soft", 0, TOKENS, searching())


def test_scores_without_every_head_are_no_part_of_it():
    searched = searching()
    with pytest.raises(InputError, match="generated"):
        plan_repair(replace(SETTINGS, bias_scores="generated"), "fasp", 0, TOKENS, searched)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"methods": ()}, "methods"),
        ({"methods": ("magic",)}, "magic"),
        ({"tokens": 0}, "tokens"),
        ({"seeds": 0}, "seeds"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes, words):
    with pytest.raises(InputError, match=words):
        replace(COMPARED, **changes)


def test_settings_survive_json():
    assert built(plain(COMPARED), EqualCostSettings) == COMPARED
