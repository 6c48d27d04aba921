"""The parts of one long computation, each kept as soon as it is finished.

For work that is no search over masks, such as scoring heads one by one: it names its parts, and a `Keep` makes each of
them or gives what an interrupted run made.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from fairmend.evaluation import digest
from fairmend.runs.database import damaged
from fairmend.runs.journal import RESULT
from fairmend.runs.store import Section, Store

Arrays: TypeAlias = Mapping[str, npt.NDArray[Any]]
Keep: TypeAlias = Callable[[str, Callable[[], Arrays]], Arrays]
"""Called with the name of a part, unique within the work, and what makes it; returns the part."""


def keep_nothing(name: str, make: Callable[[], Arrays]) -> Arrays:
    """Make every part. The `Keep` of work that has no store."""
    return make()


def within(keep: Keep, stage: str) -> Keep:
    """The same for one stage of the work, whose names may be those of other stages too."""
    return lambda name, make: keep(f"{stage}: {name}", make)


class Parts:
    """A `Keep` that keeps parts in a store, bit for bit.

    Args:
        store: where. Parts lie in its log of events.
        work: JSON-ready: what is computed. Only parts of equal work are taken.
    """

    def __init__(self, store: Store | Section, work: Mapping[str, Any]) -> None:
        self._store = store
        self._kind = f"{RESULT}: part of {digest(work)[:16]}"
        with self._as_written():
            self._found = {str(event.payload["name"]): event.payload["arrays"] for event in store.events(self._kind)}

    def __call__(self, name: str, make: Callable[[], Arrays]) -> Arrays:
        """The part of this name, as kept or made now.

        Raises:
            RunError: it cannot be written, or what is kept of it is no arrays.
        """
        found = self._found.pop(name, None)
        if found is not None:
            with self._as_written():
                return {key: _array(plain) for key, plain in found.items()}
        arrays = make()
        self._store.record(self._kind, {"name": name, "arrays": {key: _plain(each) for key, each in arrays.items()}})
        return arrays

    @contextmanager
    def _as_written(self) -> Iterator[None]:
        try:
            yield
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise damaged(self._store.path, f"a kept part: {error}") from error


def _plain(array: npt.NDArray[Any]) -> dict[str, Any]:
    data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")
    return {"dtype": array.dtype.str, "shape": list(array.shape), "data": data}


def _array(plain: Mapping[str, Any]) -> npt.NDArray[Any]:
    return np.frombuffer(base64.b64decode(plain["data"]), dtype=plain["dtype"]).reshape(plain["shape"]).copy()
