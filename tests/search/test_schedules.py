import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logsumexp

from fairmend.errors import InputError
from fairmend.search.schedules import cooling, exponential, geometric, initial_temperature, logarithmic


@given(st.integers(2, 5000), st.floats(1e-3, 10), st.floats(1e-6, 1e-3))
def test_geometric_cooling_goes_from_start_to_end_by_one_factor(steps: int, start: float, end: float) -> None:
    temperature = geometric(start, end, steps)
    assert temperature(0) == pytest.approx(start)
    assert temperature(steps - 1) == pytest.approx(end)
    factors = [temperature(i + 1) / temperature(i) for i in range(min(steps - 1, 20))]
    assert factors == pytest.approx([factors[0]] * len(factors))


def test_geometric_cooling_of_one_step_stays_at_the_start() -> None:
    assert geometric(0.01, 0.0003, 1)(0) == 0.01


def test_logarithmic_cooling_is_the_published_one() -> None:
    temperature = logarithmic(0.5)
    assert [temperature(i) for i in (0, 1, 98)] == pytest.approx([0.5 / math.log(n) for n in (2, 3, 100)])


def test_exponential_cooling_multiplies_by_its_rate_down_to_its_floor() -> None:
    temperature = exponential(0.08, 0.5, 0.01)
    assert [temperature(i) for i in range(6)] == pytest.approx([0.08, 0.04, 0.02, 0.01, 0.01, 0.01])
    assert temperature(1_000_000) == 0.01


@pytest.mark.parametrize("schedule", ["geometric", "logarithmic", "exponential"])
def test_every_schedule_cools_and_stays_positive(schedule: str) -> None:
    temperature = cooling(schedule, 0.01, 0.0003, 2000, 0.99)  # type: ignore[arg-type]
    values = [temperature(step) for step in range(2000)]
    assert min(values) > 0
    assert all(later <= earlier for earlier, later in pairwise(values))
    assert values[-1] < values[0]


@given(st.floats(1e-6, 1e3), st.floats(0.05, 0.95))
def test_initial_temperature_of_equal_steps_is_the_metropolis_rule_solved(step: float, acceptance: float) -> None:
    found = initial_temperature([1.0, 1.0], [1.0 + step, 1.0 + step], acceptance)
    assert math.exp(-((1.0 + step) - 1.0) / found) == pytest.approx(acceptance, abs=2e-4)


@pytest.mark.parametrize("acceptance", [0.05, 0.5, 0.75, 0.95])
@pytest.mark.parametrize("seed", range(4))
def test_initial_temperature_solves_ben_ameurs_equation(seed: int, acceptance: float) -> None:
    rng = np.random.default_rng(seed)
    before = rng.uniform(0, 0.2, 500)
    after = before + rng.exponential(0.02, 500) + 1e-9

    found = initial_temperature(before, after, acceptance, 1e-9)
    chi = math.exp(logsumexp(-after / found) - logsumexp(-before / found))
    assert chi == pytest.approx(acceptance, abs=1e-8)


def test_initial_temperature_does_not_underflow_far_from_zero() -> None:
    found = initial_temperature([1e6, 1e6 + 1], [1e6 + 0.001, 1e6 + 1.001], 0.75)
    assert math.exp(-0.001 / found) == pytest.approx(0.75, abs=1e-3)


@pytest.mark.parametrize(("before", "after"), [([], []), ([1.0], [1.0]), ([2.0], [1.0]), ([1.0], [math.inf])])
def test_initial_temperature_needs_uphill_moves(before: list[float], after: list[float]) -> None:
    with pytest.raises(InputError, match="at least one move, all of them uphill"):
        initial_temperature(before, after, 0.75)
