"""Soft gates: programs of least drift, against an independent solver, which end the same after any kill."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from gain_kill_target import STEPS, TOKENS, effects_of
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from tiny_lm import tiny_lm

from fairmend.errors import InputError, ModelError
from fairmend.language.measurement.drift import drift_curvature, drift_of, mean_drift
from fairmend.language.measurement.perplexity import PerplexityProtocol
from fairmend.language.models.models import LanguageModel
from fairmend.language.repair.soft_gates import find_gains, gains_along
from fairmend.runs.parts import Arrays, KeepOne, Parts, keep_nothing
from fairmend.runs.store import Store

Floats = npt.NDArray[np.float64]

KILLS = 20


def linear(slopes: Floats, start: float, known_slopes: Floats, knew: float) -> Callable[[Floats], Arrays]:
    """Effects that are the same to first order everywhere."""

    def effects(gains: Floats) -> Arrays:
        moved = gains - 1
        return {
            "deviations": np.array([start + moved @ slopes]),
            "slopes": slopes[:, None],
            "known": np.array(knew + moved @ known_slopes),
            "known_slopes": known_slopes,
        }

    return effects


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.booleans())
def test_an_independent_solver_finds_no_better_gains(seed: int, knows: bool) -> None:
    rng = np.random.default_rng(seed)
    root, slopes, known_slopes = rng.normal(size=(40, 5)), rng.normal(size=5), rng.normal(size=5)
    curvature = root.T @ root / 400
    *_, gains = find_gains(curvature, linear(slopes, 0.8, known_slopes, 1.0 if knows else -1.0), steps=3)
    metric = 0.4 * curvature + np.diag(0.6 * np.diag(curvature) + 0.003)

    def cost(values: Floats) -> float:
        moved = values - 1
        lost = max(0.0, 0.3 - moved @ known_slopes) if knows else 0.0
        return float(moved @ metric @ moved / 2 + 50 * ((0.8 + moved @ slopes) / 0.8) ** 2 + 50 * lost**2)

    best = minimize(cost, np.full(5, 0.9), method="SLSQP", bounds=[(0, 1.5)] * 5, options={"maxiter": 500})
    assert ((gains >= 0) & (gains <= 1.5)).all()
    assert cost(gains) <= best.fun * (1 + 1e-6) + 1e-9


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.booleans())
def test_the_direction_of_all_units_is_that_of_an_independent_solver(seed: int, knows: bool) -> None:
    rng = np.random.default_rng(seed)
    roots, slopes, known_slopes = 0.1 * rng.normal(size=(6, 9)), rng.normal(size=9), rng.normal(size=9)
    here = linear(slopes, 0.4, known_slopes, 1.0 if knows else -1.0)(np.ones(9))
    # Both halves of the words say the same, so that knowledge is asked to rise by as much as keeps it.
    here |= {"known_by_group": np.array([1.0 if knows else -1.0]), "known_by_group_slopes": known_slopes[:, None]}
    here |= {"halves": np.ones((2, 1)), "halves_slopes": np.stack([known_slopes[:, None]] * 2, axis=1)}
    common = rng.normal(size=9)  # what is to stay
    here["common_slopes"] = common
    half, whole = (gains_along(roots, here, 2)[step] for step in (0, 1))
    metric = 0.4 * roots.T @ roots + np.diag(0.6 * (roots**2).sum(axis=0) + 0.008)

    def least(asked: float) -> Floats:
        def cost(moved: Floats) -> float:
            missed = (known_slopes @ moved - asked) ** 2 if knows else 0.0
            missed += ((common @ moved) / 0.4) ** 2 + ((0.4 + slopes @ moved) / 0.4) ** 2
            return float(moved @ metric @ moved / 2 + 50 * missed)

        return np.asarray(minimize(cost, np.zeros(9), method="BFGS", options={"gtol": 1e-9}).x)

    without, added = least(0.0), least(1.0) - least(0.0)
    lost, gained = known_slopes @ without, known_slopes @ added
    turn = without + (min(max(-lost / gained, 0.0) + 0.3, 1.0) * added if knows else 0.0)
    assert half == pytest.approx(np.clip(1 + turn, 0, 1.5), abs=1.5e-3)
    assert whole == pytest.approx(np.clip(1 + 2 * turn, 0, 1.5), abs=2.5e-3)


def test_what_is_not_linear_is_followed_step_by_step() -> None:
    def effects(gains: Floats) -> Arrays:
        bias = np.exp(gains.sum() - 4) - 0.05  # slopes at the start promise far more
        return {
            "deviations": np.array([bias, -bias]),
            "slopes": np.outer(np.full(4, bias + 0.05), [1, -1]),
            "known": np.array(np.nan),
            "known_slopes": np.zeros(4),
        }

    left = [abs(float(effects(gains)["deviations"][0])) for gains in find_gains(np.eye(4) / 100, effects, steps=8)]
    assert left == sorted(left, reverse=True)
    assert left[-1] < 0.1


def test_a_preference_of_a_tiny_model_is_lowered_and_the_text_hardly_moves() -> None:
    lm = tiny_lm()
    effects, curvature = effects_of(lm), drift_curvature(lm, TOKENS)
    before = float(effects(np.ones(lm.head_map.n_heads))["deviations"][0])
    course = list(find_gains(curvature, effects, steps=6))
    left = [float(effects(gains)["deviations"][0]) / before for gains in course]
    assert left[:4] == pytest.approx([5 / 7, 4 / 7, 3 / 7, 2 / 7], abs=0.15)  # beyond, this model is far from linear
    windows = PerplexityProtocol("standard", 32, 32).windows(len(TOKENS))
    moved = [
        mean_drift(windows, drift_of(lm, TOKENS, windows, lm.head_map.mask(gains))).value
        for gains in (course[1], dropped(lm, left[1] * before))
    ]
    assert moved[0] < moved[1]


def dropped(lm: LanguageModel, wanted: float) -> Floats:
    """The gains that drop heads one after the other, whichever lowers the preference most, until it is low enough."""
    gains, effects = np.ones(lm.head_map.n_heads), effects_of(lm)
    while True:
        found = effects(gains)
        if found["deviations"][0] <= wanted:
            return gains
        gains[np.argmax(found["slopes"][:, 0] * gains)] = 0


def run(keep: KeepOne = keep_nothing, steps: int = 6) -> Floats:
    lm = tiny_lm()
    return np.array(list(find_gains(drift_curvature(lm, TOKENS, keep=keep), effects_of(lm), steps=steps, keep=keep)))


def test_every_step_is_told() -> None:
    told: list[tuple[int, int]] = []
    lm = tiny_lm()
    list(find_gains(np.eye(8), effects_of(lm), steps=3, progress=lambda *done: told.append(done)))
    assert told == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("ends_after", [0, 1, 4])
def test_an_interrupted_run_goes_on_where_it_was(tmp_path: Path, ends_after: int) -> None:
    lm = tiny_lm()
    with Store.create(tmp_path / "run.sqlite", {"kind": "test"}) as store:
        keep = Parts(store, {})
        course = find_gains(drift_curvature(lm, TOKENS, keep=keep), effects_of(lm), steps=6, keep=keep)
        for _ in zip(range(ends_after), course, strict=False):
            pass
    made: list[str] = []
    with Store.open(tmp_path / "run.sqlite") as store:
        parts = Parts(store, {})

        def kept(name: str, make: Callable[[], Arrays]) -> Arrays:
            def counted() -> Arrays:
                made.append(name)
                return make()

            return parts(name, counted)

        assert np.array_equal(run(kept), run())
    assert len(made) <= 6 - ends_after


def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(InputError, match="need 1 or more of both"):
        next(find_gains(np.eye(8), effects_of(tiny_lm()), steps=0))
    with pytest.raises(ModelError, match="the curvature of the drift is not finite"):
        next(find_gains(np.full((8, 8), np.nan), effects_of(tiny_lm())))
    broken = linear(np.full(8, np.nan), 1.0, np.ones(8), 1.0)
    with pytest.raises(ModelError, match="are not finite where 29% of the bias is to go"):
        next(find_gains(np.eye(8), broken))
    more = {"common_slopes": np.zeros(8), "known_by_group": np.zeros(0), "halves_slopes": np.zeros((8, 2, 0))}
    here = effects_of(tiny_lm())(np.ones(8)) | more
    with pytest.raises(ModelError, match="not finite: take float32"):
        gains_along(np.full((2, 8), np.nan), here, 2)


# --- kills


def begun(directory: Path) -> int:
    """How many steps were begun there by all sessions."""
    path = directory / "begun.txt"
    return path.read_text().count("\n") if path.exists() else 0


@pytest.mark.slow
def test_kills_at_random_moments_change_no_bit(tmp_path: Path) -> None:
    target = Path(__file__).parents[1] / "gain_kill_target.py"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, str(target)], text=True, **pipes) as parent:  # type: ignore[call-overload]

        def session(directory: Path, steps: int | None = None, seconds: float = 0.0) -> int:
            """The exit code of a session, killed so many seconds after it began its step of that number, if any."""
            before = begun(directory)
            parent.stdin.write(f"{directory}\n")
            parent.stdin.flush()
            child = int(parent.stdout.readline())
            if steps is not None:
                while begun(directory) < before + steps:
                    time.sleep(0.001)
                time.sleep(seconds)
                os.kill(child, signal.SIGKILL)
            return int(parent.stdout.readline())

        assert session(tmp_path / "whole") == 0
        whole = json.loads((tmp_path / "whole" / "gains.json").read_text())
        rng, repeated = random.Random(5), 0
        for number in range(KILLS // 4):
            directory = tmp_path / f"run{number}"
            for _ in range(4):
                assert session(directory, rng.randint(1, 2), rng.uniform(0, 0.02)) == -signal.SIGKILL
            assert session(directory) == 0
            assert json.loads((directory / "gains.json").read_text()) == whole
            repeated += begun(directory) - STEPS
        parent.stdin.close()
    assert 0 < repeated <= KILLS, "a kill costs the step that it strikes, and no other"
