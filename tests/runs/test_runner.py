"""The loop: whole answers, exact budgets, resume by replay, and nothing lost when it is cut short."""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from toy_runs import (
    DIALLED,
    SPACE,
    ListProgress,
    ListSearcher,
    ToyEvaluator,
    ToySearcher,
)

from fairmend.errors import InputError, RunError
from fairmend.evaluation import Measurement
from fairmend.masks import Mask
from fairmend.runs.budgets import Budget
from fairmend.runs.runner import Runner
from fairmend.runs.store import Store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.sqlite"


def opened(path: Path) -> Store:
    return Store.open(path) if path.exists() else Store.create(path, {})


def run(path: Path, searcher, evaluator: ToyEvaluator | None = None, budget: Budget | None = None, **options):
    evaluator = ToyEvaluator() if evaluator is None else evaluator
    with opened(path) as store:
        return Runner(evaluator, store.context("search", evaluator), **options).run(searcher, budget)


def uninterrupted(**options) -> ToySearcher:
    searcher = ToySearcher(**options)
    Runner(ToyEvaluator()).run(searcher)
    return searcher


def test_each_distinct_mask_is_measured_once_and_answers_come_in_order() -> None:
    evaluator = ToyEvaluator()
    runner = Runner(evaluator)
    a, b, c = SPACE.mask([1]), SPACE.mask([2]), SPACE.mask([3])
    answers = runner.measure([a, b, a, c, b]) + runner.measure([c])
    assert evaluator.measured == [a, b, c]
    assert [m.bias for m in answers] == [m.bias for m in ToyEvaluator().measure([a, b, a, c, b, c])]


def test_the_summary_accounts_for_every_state(path: Path) -> None:
    searcher = ToySearcher(states=200)
    summary = run(path, searcher)
    assert (summary.stopped, summary.asked, summary.replayed) == ("finished", 200, 0)
    assert summary.measured == len({bits for bits, _ in searcher.told})
    assert summary.measured + summary.looked_up == summary.asked
    assert 0 < summary.evaluator_seconds < summary.seconds
    assert 0 < summary.store_seconds < summary.seconds


@pytest.mark.parametrize("batch", [1, 7])
def test_a_resumed_run_equals_an_uninterrupted_one(path: Path, batch: int) -> None:
    whole = uninterrupted(states=210, batch=batch)
    for evaluations in (49, 50, 160):
        run(path, ToySearcher(states=210, batch=batch), budget=Budget(evaluations=evaluations))
    searcher, evaluator = ToySearcher(states=210, batch=batch), ToyEvaluator()
    summary = run(path, searcher, evaluator)
    assert searcher.told == whole.told or all(
        a == b or (math.isnan(a[1]) and math.isnan(b[1])) for a, b in zip(searcher.told, whole.told, strict=True)
    )
    assert searcher.best == whole.best
    assert summary.stopped == "finished"
    assert summary.replayed == 160 // batch * batch
    assert summary.measured < 100
    with Store.open(path) as store:
        rows = list(store.context("search"))
    assert len(rows) == len({bits for bits, _ in whole.told})


def test_a_finished_run_measures_nothing_when_repeated(path: Path) -> None:
    run(path, ToySearcher())
    summary = run(path, ToySearcher())
    assert (summary.stopped, summary.measured, summary.looked_up, summary.replayed) == ("finished", 0, 100, 100)


def test_the_run_ends_before_an_ask_that_would_exceed_the_budget() -> None:
    searcher = ToySearcher(batch=8)
    summary = Runner(ToyEvaluator()).run(searcher, Budget(evaluations=30))
    assert (summary.stopped, summary.asked, len(searcher.told)) == ("evaluations", 24, 24)


def test_a_searcher_that_has_nothing_more_to_ask_has_finished_even_at_the_budget() -> None:
    assert Runner(ToyEvaluator()).run(ToySearcher(states=30), Budget(evaluations=30)).stopped == "finished"


def test_a_budget_below_the_first_ask_is_refused_with_the_least_that_works() -> None:
    evaluator = ToyEvaluator()
    with pytest.raises(InputError, match=r"5 evaluations.*toy annealing, 8 masks: give at least 8"):
        Runner(evaluator).run(ToySearcher(batch=8), Budget(evaluations=5))
    assert evaluator.measured == []


@pytest.mark.parametrize("limits", [{"evaluations": 0}, {"evaluations": -3}, {"seconds": 0.0}, {"seconds": math.nan}])
def test_a_budget_of_nothing_is_refused(limits: dict[str, float]) -> None:
    with pytest.raises(InputError, match=str(*limits.values())):
        Budget(**limits)  # type: ignore[arg-type]


def test_seconds_are_counted_over_all_sessions_and_a_replay_stops_at_the_same_state(path: Path) -> None:
    def session(seconds: float) -> tuple[str, list[tuple[int, float]]]:
        searcher = ToySearcher(states=10_000)
        summary = run(path, searcher, ToyEvaluator(seconds=0.002), Budget(seconds=seconds))
        assert summary.asked == len(searcher.told)
        return summary.stopped, searcher.told

    stopped, first = session(0.2)
    assert stopped == "seconds"
    assert 20 < len(first) < 400
    stopped, again = session(0.2)
    assert (stopped, len(again)) == ("seconds", len(first))
    stopped, longer = session(0.4)
    assert stopped == "seconds"
    assert len(first) < len(longer)
    with Store.open(path) as store:
        sessions = [event.payload for event in store.events("session")]
    assert [s["stopped"] for s in sessions] == ["seconds"] * 3
    assert 0.4 <= sum(s["seconds"] for s in sessions) < 0.6
    assert sessions[-1]["told"] == len(longer)


def test_seconds_end_a_long_ask_between_its_parts_and_keep_what_was_measured(path: Path) -> None:
    masks = [SPACE.mask(units) for units in itertools.combinations(range(16), 3)]
    searcher = ListSearcher(masks)
    summary = run(path, searcher, ToyEvaluator(seconds=0.01), Budget(seconds=0.3))
    assert (summary.stopped, summary.asked, searcher.answers) == ("seconds", 0, [])
    with Store.open(path) as store:
        kept = [mask for mask, _ in store.context("search")]
    assert 0 < len(kept) == summary.measured < len(masks)
    assert kept == masks[: len(kept)]
    assert run(path, ListSearcher(masks), ToyEvaluator(), Budget(seconds=0.3)).measured == 0


def test_two_searches_in_one_context_have_budgets_of_their_own_but_share_measurements(path: Path) -> None:
    run(path, ToySearcher(seed=1, states=50))
    summary = run(path, ToySearcher(seed=2, states=50))
    assert summary.replayed == 0
    assert summary.looked_up > 0


def test_a_long_ask_is_measured_in_parts_that_grow_while_they_are_quick() -> None:
    evaluator = ToyEvaluator()
    Runner(evaluator).measure([SPACE.mask(units) for units in itertools.combinations(range(16), 2)])
    assert evaluator.batches[:5] == [1, 2, 4, 8, 16]
    assert sum(evaluator.batches) == 120


@pytest.mark.parametrize(
    "mask", [Mask(0b11, 17), Mask(2**16 - 1, 16), Mask(1, 16, (0.5,)), Mask(0, 17), DIALLED.untouched().flip(1)]
)
def test_a_mask_outside_the_space_is_refused_and_its_asker_named(mask: Mask) -> None:
    evaluator = ToyEvaluator()
    with pytest.raises(InputError, match="list asked for a mask outside"):
        Runner(evaluator).run(ListSearcher([mask]))
    assert evaluator.measured == []


def test_the_untouched_mask_is_welcome_whatever_the_size_limits() -> None:
    assert SPACE.min_drop == 1
    assert Runner(ToyEvaluator()).measure([SPACE.untouched()])[0].bias == 0.0


def test_an_exception_of_the_evaluator_names_the_masks_and_keeps_what_was_measured(path: Path) -> None:
    good, bad = SPACE.mask([1]), SPACE.mask([5])
    with pytest.raises(ArithmeticError, match="unit 5") as caught:
        run(path, ListSearcher([good], [bad]), ToyEvaluator(fails_on=5))
    assert caught.value.__notes__ == ["while measuring for list: 1 masks (units [5] dials [])"]
    with Store.open(path) as store:
        assert [mask for mask, _ in store.context("search")] == [good]
        assert store.events("session")[0].payload["stopped"] == "failed"


def test_an_evaluator_that_forgets_masks_is_caught() -> None:
    class Forgetful(ToyEvaluator):
        def measure(self, masks: Sequence[Mask]) -> list[Measurement]:
            return super().measure(masks)[1:]

    with pytest.raises(RunError, match="0 measurements for 1 masks"):
        Runner(Forgetful()).measure([SPACE.mask([1])])


def test_measurements_that_are_not_numbers_pass_through(path: Path) -> None:
    broken = SPACE.mask([0, 1])
    for _ in range(2):
        searcher = ListSearcher([broken])
        run(path, searcher)
        assert math.isnan(searcher.answers[0][0].bias)


def test_progress_shows_the_budget_the_rate_and_the_note_and_is_closed() -> None:
    progress = ListProgress()
    evaluator = ToyEvaluator(seconds=0.004)
    Runner(evaluator, progress=progress).run(ToySearcher(), Budget(evaluations=100), note=lambda: "best 0.1")
    assert progress.started == [(100, "toy annealing")]
    assert progress.closed == 1
    assert 3 <= len(progress.updates) <= 20
    assert progress.updates[0][:3] == (0, 100, 0.0)
    done, total, rate, eta, note = progress.updates[2]
    assert (total, note) == (100, "best 0.1")
    assert 0 < done < 100
    assert 50 < rate < 2000
    assert eta == pytest.approx((100 - done) / rate)
    assert progress.updates[-1][0] == 100


def test_replayed_states_do_not_distort_the_rate(path: Path) -> None:
    asks = [[SPACE.mask(units)] for units in itertools.combinations(range(16), 4)]
    run(path, ListSearcher(*asks), budget=Budget(evaluations=len(asks) - 10))
    progress = ListProgress()
    run(path, ListSearcher(*asks), ToyEvaluator(seconds=0.05), progress=progress)
    assert progress.updates[-1][0] == len(asks)
    assert 0 < progress.updates[-1][2] <= 20  # ten masks at 0.05 s each, not 1,820 within the same time


def test_progress_within_a_long_ask_counts_what_is_measured() -> None:
    progress = ListProgress()
    masks = [SPACE.mask(units) for units in itertools.combinations(range(16), 2)]
    Runner(ToyEvaluator(seconds=0.005), progress=progress).run(ListSearcher(masks))
    assert any(0 < update[0] < 120 for update in progress.updates)


def test_a_display_is_closed_when_the_run_fails() -> None:
    progress = ListProgress()
    with pytest.raises(ArithmeticError):
        Runner(ToyEvaluator(fails_on=5), progress=progress).run(ListSearcher([SPACE.mask([5])]))
    assert progress.closed == 1


@pytest.mark.parametrize("delay", [0.05, 0.21, 0.33])
def test_ctrl_c_ends_the_run_with_everything_stored(path: Path, delay: float) -> None:
    evaluator, searcher = ToyEvaluator(seconds=0.01, ctrl_c_after=delay), ToySearcher(states=1000)
    summary = run(path, searcher, evaluator)
    assert summary.stopped == "interrupted"
    assert summary.asked == len(searcher.told)
    with Store.open(path) as store:
        assert len(store.context("search")) >= len(evaluator.measured) - 1  # all but the one at hand
    resumed = ToySearcher(states=1000)
    assert run(path, resumed).stopped == "finished"
    assert resumed.best == uninterrupted(states=1000).best


def test_a_summary_cannot_be_changed() -> None:
    summary = Runner(ToyEvaluator()).run(ToySearcher())
    with pytest.raises(AttributeError):
        summary.asked = 5  # type: ignore[misc]


def test_a_searcher_whose_settings_cannot_be_recorded_is_refused(path: Path) -> None:
    class Odd(ListSearcher):
        def settings(self) -> dict[str, object]:
            return {"name": "odd", "rng": object()}

    evaluator = ToyEvaluator()
    with pytest.raises(InputError, match="settings of a searcher"):
        run(path, Odd([SPACE.mask([1])]), evaluator)
    assert evaluator.measured == []


def test_a_second_ctrl_c_while_stopping_leaves_a_whole_run(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluator, searcher = ToyEvaluator(seconds=0.01, ctrl_c_after=0.1), ToySearcher(states=300)
    with monkeypatch.context() as patched:
        patched.setattr("fairmend.runs.budgets.Session.end", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(path, searcher, evaluator)
    resumed = ToySearcher(states=300)
    assert run(path, resumed).stopped == "finished"
    assert resumed.best == uninterrupted(states=300).best


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt
