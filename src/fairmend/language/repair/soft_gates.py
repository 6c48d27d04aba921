"""Soft gates: a gain per head, or per head and hidden neuron, in place of units that are off or on.

No weight is trained: there are as many numbers as heads, and the columns of the output projections absorb them like
dropped heads (see `fairmend.language.heads.folding`). What is sought are the gains that move the model's words least,
while the bias falls to a share of what it was and the knowledge rises: a quadratic program (Nocedal and Wright,
Numerical Optimization, 2006, chapter 18) with the drift's second derivatives, which needs no weights to be balanced. As
effects change with the gains, the share falls step by step, and each step takes slopes at the gains of the one before.

Knowledge is asked to rise because words that no slope was taken of know a little less of every repair than others.

Neurons are many, each is turned a little, and the drift allows far more than the bias needs: what limits such a repair
is how far it holds for words that no slope was taken of. So there is one program instead of one after the other, which
would fit the words that are searched with ever better, its ridge weighs more, and its solution is followed beyond where
slopes say that the bias is gone, because effects fade as they add up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import numpy.typing as npt
from scipy.linalg import cholesky, solve
from scipy.optimize import lsq_linear

from fairmend.errors import InputError, ModelError
from fairmend.language.backend.batching import Done
from fairmend.language.heads.heads import LARGEST_GAIN
from fairmend.runs.parts import Arrays, KeepOne, keep_nothing

Floats = npt.NDArray[np.float64]

RISE = 0.3
"""By which share of itself knowledge is to rise by the step that takes the whole bias, beyond what keeps it."""

_TIGHT = 50.0  # nats of drift that missing the whole bias or knowledge is worth, squared
_DIAGONAL = 0.6  # how far sampled curvature shrinks towards its diagonal, which samples tell best
_RIDGE = 0.003

_MOST_RISE = 1.0
_RIDGE_OF_ALL = 0.008
_FARTHEST = 2.0  # times the turn that takes the whole bias, by its slopes
_DIGITS = 3  # of gains: neurons that are turned by less stay as they are


def find_gains(
    curvature: Floats,
    effects: Callable[[Floats], Arrays],
    *,
    steps: int = 6,
    keep: KeepOne = keep_nothing,
    progress: Done | None = None,
) -> Iterator[Floats]:
    """The gains of least drift for less and less bias, down to none.

    The state after every step is kept: stopped or killed at any moment and gone on with, the gains are the same, bit
    for bit.

    Args:
        curvature: second derivatives of the drift where all gains are 1, `(n_heads, n_heads)`; from `drift_curvature`.
        effects: called with gains; gives "deviations" `(n_groups,)` of the groups' means, which are to become 0,
            "known" `()`, which is to rise (NaN or 0 and less: there is no knowledge to keep), and the derivatives of
            both with respect to the gains, "slopes" `(n_heads, n_groups)` and "known_slopes" `(n_heads,)`.
        steps: how many; the k-th is to leave (steps - k) / (steps + 1) of the bias.
        keep: keeps the state after every step, such as `Parts(store, work)`, where `work` is to name what curvature
            and effects depend on.
        progress: told how many steps are taken, such as `Stages.of`, which shows the time left.

    Yields:
        The gains after every step, of shape (n_heads,), from 0 to 1.5.

    Raises:
        InputError: no heads or steps.
        ModelError: effects or curvature that are not finite.
    """
    if not len(curvature) or steps < 1:
        raise InputError(f"{len(curvature)} gains and {steps} steps: need 1 or more of both")
    if not np.isfinite(curvature).all():
        raise ModelError("soft gates: the curvature of the drift is not finite: take float32")
    shrunk = (1 - _DIAGONAL) * curvature + np.diag(_DIAGONAL * np.diag(curvature) + _RIDGE)
    first: Arrays = {}
    gains = np.ones(len(curvature))
    for step in range(1, steps + 1):
        state = keep(f"step {step}", partial(_step, shrunk, effects, first, gains, (step + 1) / (steps + 1)))
        first, gains = first or state, state["gains"]
        if progress is not None:
            progress(step, steps)
        yield gains.copy()


def gains_along(roots: Floats, here: Arrays, steps: int) -> list[Floats]:
    """Gains of heads and neurons ever farther along the one direction that takes the bias at the least drift.

    Minimised is x'Qx / 2 with what bias and knowledge miss, squared, where x are the gains minus 1 and Q the drift's
    shrunk curvature with a ridge. What all groups have in common is to stay as it is. The knowledge of every group is
    asked to rise by what keeps it, by its slopes, for the words of either half when it is asked of the other half, and
    by `RISE` more, because sentences are new to held-out words as well.

    Args:
        roots: of the curvature, `(n_windows, n_units)`, from `drift_roots`.
        here: bias, knowledge and their slopes at gains of 1, see `find_gains`; "common_slopes" `(n_units,)` of what
            groups are compared with; "known_by_group" `(n_known,)` and "known_by_group_slopes" `(n_units, n_known)`;
            "halves" `(2, n_known)` and "halves_slopes" `(n_units, 2, n_known)` of either half of the words.
        steps: how many, up to twice the turn that takes the whole bias by its slopes.

    Returns:
        Gains from 0 to 1.5, of shape (n_units,), one array per step.

    Raises:
        ModelError: roots or effects that are not finite.
    """
    if not all(np.isfinite(each).all() for each in (roots, here["deviations"], here["slopes"], here["halves_slopes"])):
        raise ModelError("soft gates: the curvature, bias, knowledge or their slopes are not finite: take float32")
    scale, tight = max(float(np.abs(here["deviations"]).sum()), 1e-9), math.sqrt(2 * _TIGHT)
    rows = [
        math.sqrt(1 - _DIAGONAL) * roots,
        tight / scale * here["common_slopes"][None],
        tight / scale * here["slopes"].T,
    ]
    missed = np.concatenate([np.zeros(len(roots) + 1), -tight / scale * here["deviations"]])
    diagonal = _DIAGONAL * (roots**2).sum(axis=0) + _RIDGE_OF_ALL

    def turn(*known: Floats) -> Floats:
        """The turn without a rise of knowledge, and what a rise by the whole of it adds; columns of (n_units, 2)."""
        pulls = np.vstack([*rows, *(tight * each[None] for each in known)])
        goals = np.zeros((len(pulls), 2))
        goals[: len(missed), 0], goals[len(missed) :, 1] = missed, tight
        # All but the diagonal are few rows, so that there are only as many equations (Henderson and Searle, SIAM Review
        # 1981, the push-through identity).
        even = pulls / diagonal
        found: Floats = even.T @ solve(np.eye(len(pulls)) + even @ pulls.T, goals, assume_a="pos")
        return found

    chosen, knew = turn()[:, 0], here["known_by_group"]
    if (knew > 0).any():
        has = np.flatnonzero(knew > 0)
        halves = [
            (here["halves_slopes"][:, half, has] / np.maximum(here["halves"][half, has], 0.1 * knew[has])).T
            for half in (0, 1)
        ]
        moved = np.concatenate([halves[other] @ turn(*halves[half]) for half, other in ((0, 1), (1, 0))])
        needed = float(np.mean([-without / added if added > 0 else _MOST_RISE for without, added in moved]))
        without, added = turn(*(here["known_by_group_slopes"][:, has] / knew[has]).T).T
        chosen = without + min(max(needed, 0.0) + RISE, _MOST_RISE) * added
    lengths = _FARTHEST * np.arange(1, steps + 1) / steps
    return [np.clip(1 + length * chosen, 0.0, LARGEST_GAIN).round(_DIGITS) for length in lengths]


def _step(curvature: Floats, effects: Callable[[Floats], Arrays], first: Arrays, gains: Floats, part: float) -> Arrays:
    here = effects(gains)
    before = first or here
    scale, knew = max(float(np.abs(before["deviations"]).sum()), 1e-9), float(before["known"])
    goal = (1 - part) * before["deviations"] - here["deviations"] + gains @ here["slopes"]
    least = (1 + RISE * part) * knew - float(here["known"]) + gains @ here["known_slopes"]

    # As bounded least squares: half the squared length of what each of these rows misses is what is minimised.
    tight, root = math.sqrt(2 * _TIGHT), cholesky(curvature)  # upper: its transpose times itself is the curvature
    rows = np.vstack([root, tight / scale * here["slopes"].T])
    wanted = np.concatenate([root.sum(axis=1), tight / scale * goal])
    lower, upper = np.zeros(len(gains)), np.full(len(gains), LARGEST_GAIN)
    if knew > 0:  # one more variable, from 0 on, is what knowledge has to spare
        rows = np.block([[rows, np.zeros((len(rows), 1))], [tight / knew * here["known_slopes"], -tight]])
        wanted, lower, upper = np.append(wanted, tight / knew * least), np.append(lower, 0.0), np.append(upper, np.inf)
    if not (np.isfinite(rows).all() and np.isfinite(wanted).all()):
        raise ModelError(
            f"soft gates: bias, knowledge or their slopes are not finite where {part:.0%} of the bias is to go: these "
            "gains break the model; take float32, or more --soft-steps"
        )
    found = lsq_linear(rows, wanted, (lower, upper), method="bvls", tol=1e-12)
    return {"gains": np.asarray(found.x[: len(gains)]), "deviations": here["deviations"], "known": here["known"]}
