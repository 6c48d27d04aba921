"""Soft gates: projected steps of Adam that lower what they are given, and end the same after any kill."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from gain_kill_target import STEPS, items_of, loss_of, terms_of
from hypothesis import given
from hypothesis import strategies as st
from tiny_lm import tiny_lm
from torch import Tensor

from fairmend.errors import InputError, ModelError
from fairmend.language.repair.soft_gates import find_gains
from fairmend.runs.parts import Arrays, Parts, within
from fairmend.runs.store import Store

KILLS = 20


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=6), st.floats(0.01, 0.6))
def test_steps_are_those_of_torch_cut_off_at_the_limits(target: list[float], rate: float) -> None:
    goal = torch.tensor(target, dtype=torch.float64)
    theirs = torch.ones(len(goal), dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([theirs], lr=rate)

    def terms(gates: Tensor, _: np.random.Generator) -> Iterator[Tensor]:
        yield ((gates - goal.float()) ** 2).sum()
        yield (0.1 * gates).sum()

    for gains in find_gains(len(goal), terms, steps=8, rate=rate):
        adam.zero_grad()
        rounded = theirs.float()  # gates are float32
        (((rounded - goal.float()) ** 2).sum() + 0.1 * rounded.sum()).backward()  # type: ignore[no-untyped-call]
        adam.step()
        with torch.no_grad():
            theirs.clamp_(0, 1.5)
        np.testing.assert_allclose(gains, theirs.detach().numpy(), atol=1e-4)
        assert ((gains >= 0) & (gains <= 1.5)).all()


def test_a_preference_of_a_tiny_model_is_lowered_and_the_text_hardly_moves() -> None:
    lm = tiny_lm()
    *_, gains = find_gains(lm.head_map.n_heads, terms_of(lm), steps=30, seed=1)
    (preferred, drifted), (left, moved) = (
        [float(term.detach()) for term in loss_of(lm, items_of(lm), lm.head_map.gates(lm.head_map.mask(values)), 3)]
        for values in (np.ones(lm.head_map.n_heads), gains)
    )
    assert (preferred, drifted) == (pytest.approx(1, abs=0.01), 0)
    assert left < 0.2
    assert moved < 0.1


def run(seed: int = 0, keep: object = None, steps: int = 6) -> npt.NDArray[np.float64]:
    lm = tiny_lm()
    options = {} if keep is None else {"keep": keep}
    return np.array(list(find_gains(lm.head_map.n_heads, terms_of(lm), steps=steps, seed=seed, **options)))  # type: ignore[arg-type]


def test_a_seed_is_one_course_and_every_step_is_told() -> None:
    told: list[tuple[int, int]] = []
    lm = tiny_lm()
    one = list(find_gains(lm.head_map.n_heads, terms_of(lm), steps=3, progress=lambda *done: told.append(done)))
    assert np.array_equal(one, run()[:3])
    assert not np.array_equal(run(1), run())
    assert told == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("ends_after", [0, 1, 4])
def test_an_interrupted_run_goes_on_where_it_was(tmp_path: Path, ends_after: int) -> None:
    with Store.create(tmp_path / "run.sqlite", {"kind": "test"}) as store:
        for _ in zip(
            range(ends_after), find_gains(8, terms_of(tiny_lm()), keep=Parts(store, {"seed": 0})), strict=False
        ):
            pass
    made: list[str] = []
    with Store.open(tmp_path / "run.sqlite") as store:
        parts = Parts(store, {"seed": 0})

        def keep(name: str, make: object) -> Arrays:
            def counted() -> Arrays:
                made.append(name)
                return make()  # type: ignore[operator, no-any-return]

            return parts(name, counted)

        assert np.array_equal(run(keep=keep), run())
    assert len(made) <= 6 - ends_after


def test_courses_of_several_seeds_lie_in_one_store(tmp_path: Path) -> None:
    with Store.create(tmp_path / "run.sqlite", {"kind": "test"}) as store:
        for _ in range(2):
            parts = Parts(store, {})
            for seed in range(2):
                assert np.array_equal(run(seed, within(parts, f"seed {seed}")), run(seed))


def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(InputError, match="need 1 or more of both, and a positive rate"):
        next(find_gains(8, terms_of(tiny_lm()), steps=0))
    with pytest.raises(InputError, match="no term depends on the gates"):
        next(find_gains(8, lambda *_: ()))
    with pytest.raises(ModelError, match="the sum of terms is nan at step 1"):
        next(find_gains(8, lambda gates, _: (gates.sum() * torch.nan,)))


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
