"""Soft gates: a gain per head, found by projected gradient steps, in place of heads that are off or on.

No weight is trained: there are as many numbers as heads, and the columns of the output projections absorb them like
dropped heads (see `fairmend.language.heads.folding`). What is minimised is the caller's, such as
(bias / bias before)^2 + c1 * drift + c2 * (knowledge lost / knowledge before)^2 on a few items and windows per step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fairmend.errors import InputError, ModelError
from fairmend.language.backend.batching import Done
from fairmend.language.heads.heads import LARGEST_GAIN
from fairmend.runs.parts import Arrays, Keep, keep_nothing

Floats = npt.NDArray[np.float64]
Terms: TypeAlias = Callable[[Tensor, np.random.Generator], Iterable[Tensor]]
"""Called with gates (n_heads,) and a generator to draw a batch with; the scalars whose sum is to become small. Each is
differentiated before the next is asked for, so that a generator function holds one of them in memory at a time; the
gates are to be set anew for each."""

_DECAYS = np.array([[0.9], [0.999]])  # of the means of gradients and of their squares
_TINY = 1e-8


def find_gains(
    n_heads: int,
    terms: Terms,
    *,
    steps: int = 40,
    rate: float = 0.05,
    seed: int = 0,
    keep: Keep = keep_nothing,
    progress: Done | None = None,
) -> Iterator[Floats]:
    """Lower a sum of terms by steps of Adam (Kingma and Ba, 2015, algorithm 1), each cut off at 0 and 1.5.

    The state after every step is kept, and every step draws from a generator of its own: stopped or killed at any
    moment and gone on with, the gains are the same, bit for bit.

    Args:
        n_heads: number of gains; all start at 1.
        terms: what to lower, on batches of its own drawing.
        steps: how many at most; whoever iterates may end earlier.
        rate: the largest change of a gain by a step, roughly.
        seed: of the batches.
        keep: keeps the state after every step, such as `Parts(store, work)`, where `work` is to name what the terms
            depend on, with rate and seed.
        progress: told how many steps are taken, such as `Stages.of`, which shows the time left.

    Yields:
        The gains after every step, float64 of shape (n_heads,).

    Raises:
        InputError: no heads or steps, a rate that is not positive, or no term that depends on the gates.
        ModelError: terms that are not finite.
    """
    if n_heads < 1 or steps < 1 or not 0 < rate < np.inf:
        raise InputError(f"{n_heads} gains, {steps} steps and rate {rate}: need 1 or more of both, and a positive rate")
    state: Arrays = {"gains": np.ones(n_heads), "means": np.zeros((2, n_heads))}
    for step in range(1, steps + 1):
        make = partial(_step, terms, state, step, rate, np.random.default_rng([seed, step]))
        state = keep(f"step {step}", make)
        if progress is not None:
            progress(step, steps)
        yield state["gains"].copy()


def _step(terms: Terms, before: Arrays, step: int, rate: float, rng: np.random.Generator) -> Arrays:
    gates = torch.tensor(before["gains"], dtype=torch.float32, requires_grad=True)
    loss = 0.0
    with torch.enable_grad():
        for term in terms(gates, rng):
            term.backward()  # type: ignore[no-untyped-call]
            loss += float(term.detach())
    if gates.grad is None:
        raise InputError("no term depends on the gates: set them on the model, see HeadGates.set")
    gradient = gates.grad.double().numpy()
    if not (np.isfinite(loss) and bool(np.isfinite(gradient).all())):
        raise ModelError(
            f"soft gates: the sum of terms is {loss} at step {step}, or its gradient is not finite: these gains break "
            "the model; take a smaller rate, or float32"
        )
    means = _DECAYS * before["means"] + (1 - _DECAYS) * np.stack([gradient, gradient**2])
    first, second = means / (1 - _DECAYS**step)
    gains = np.clip(before["gains"] - rate * first / (np.sqrt(second) + _TINY), 0.0, LARGEST_GAIN)
    return {"gains": gains, "means": means}
