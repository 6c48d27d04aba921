"""The compiled kernels behind one argument.

A kernel that is given thirty arrays by Python spends longer on taking them apart than a small network takes to
evaluate. A workspace is taken apart once, when it is made; a call then hands over a reference.
"""

from __future__ import annotations

from typing import Any

from numba import njit, types
from numba.experimental import structref

from fairmend.tabular.counting.counting import ExactNetwork, Task, measure_logits
from fairmend.tabular.counting.kernels import Float32, Float64, NetworkArrays, State
from fairmend.tabular.counting.kernels import flip as _flip
from fairmend.tabular.counting.kernels import keep as _keep
from fairmend.tabular.counting.kernels import refresh as _refresh

_jit = njit(cache=True, nogil=True)


@structref.register
class _WorkspaceType(types.StructRef):
    def preprocess_fields(self, fields: Any) -> Any:
        return tuple((name, types.unliteral(kind)) for name, kind in fields)


class Workspace(structref.StructRefProxy):
    """What the kernels work on: made by `workspace`; only compiled code sees the fields.

    Attributes:
        fast, exact: the network in float32 and in float64.
        state: what is remembered.
        task: what is counted, and the figures to make of it.
        proposed: (n_rows,) float32 logits of the last flip.
        figures: (2 + n_cells,) what `measure` found.
    """

    fast: NetworkArrays
    exact: ExactNetwork
    state: State
    task: Task
    proposed: Float32
    figures: Float64


structref.define_boxing(_WorkspaceType, Workspace)
structref.define_constructor(Workspace, _WorkspaceType, list(Workspace.__annotations__))


@_jit
def workspace(
    fast: NetworkArrays,
    exact: ExactNetwork,
    state: State,
    task: Task,
    proposed: Float32,
    figures: Float64,
) -> Workspace:
    """A workspace over these arrays, which it shares."""
    return Workspace(fast, exact, state, task, proposed, figures)  # type: ignore[no-untyped-call]


@_jit
def refresh(work: Workspace) -> None:
    """See `kernels.refresh`."""
    _refresh(work.fast, work.state)


@_jit
def flip(work: Workspace, layer: int, position: int) -> None:
    """See `kernels.flip`; the logits go into the workspace."""
    _flip(work.fast, work.state, layer, position, work.proposed)


@_jit
def keep(work: Workspace, layer: int, position: int) -> None:
    """See `kernels.keep`: move to the mask of the last `flip`."""
    _keep(work.fast, work.state, layer, position, work.proposed)


@_jit
def measure(work: Workspace, flipped: int, shift: float, tolerance: float) -> None:
    """Figures of the remembered mask, or, where unit `flipped` >= 0, of the mask of the last `flip`, which was of it.

    See `counting.measure_logits`; they go into the workspace.
    """
    alive = work.state.alive
    if flipped < 0:
        measure_logits(work.exact, alive, work.state.logits, work.task, shift, tolerance, work.figures)
        return
    alive[flipped] = not alive[flipped]
    measure_logits(work.exact, alive, work.proposed, work.task, shift, tolerance, work.figures)
    alive[flipped] = not alive[flipped]
