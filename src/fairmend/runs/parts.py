"""The parts of one long computation, each kept as soon as it is finished.

For work that is no search over masks, such as scoring heads one by one: it names its parts, and a `Keep` has each of
them made, by workers where parts do not need each other, or gives what an interrupted run made.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from fairmend.evaluation import digest
from fairmend.runs.database import damaged
from fairmend.runs.journal import RESULT
from fairmend.runs.store import Section, Store
from fairmend.runs.workers.measuring import keep_in_order
from fairmend.runs.workers.tasks import Done, InProcess, Task, Workers

Arrays: TypeAlias = Mapping[str, npt.NDArray[Any]]
KeepOne: TypeAlias = Callable[[str, Callable[[], Arrays]], Arrays]
"""A `Keep`, or what calls one, where parts need each other."""


class Keep:
    """Makes every part and keeps none: what work without a store is given.

    Args:
        workers: who makes parts that do not need each other; None is this process.
    """

    def __init__(self, workers: Workers | None = None) -> None:
        self.workers = workers or InProcess()

    def __call__(self, name: str, make: Callable[[], Arrays]) -> Arrays:
        """The part of this name, unique within the work; made by `make` unless it is kept."""
        return make()

    def has(self, name: str) -> bool:
        """Whether the part of this name is kept."""
        return False

    def all(
        self, work: Callable[..., Arrays], parts: Mapping[str, tuple[Any, ...]], told: Callable[[str], None]
    ) -> dict[str, Arrays]:
        """Parts that do not need each other, made by the workers, unless they are kept, and kept in their order.

        Args:
            work: makes a part; pickled where workers are elsewhere.
            parts: what `work` is called with, by the names of the parts.
            told: called with the name of each part once it is there.
        """
        made = {}
        for name in parts:
            if self.has(name):
                made[name] = self(name, dict)
                told(name)
        missing = [name for name in parts if name not in made]

        def keep(done: Done) -> None:
            name = missing[done.number]
            made[name] = self(name, lambda: done.result)
            told(name)

        tasks = (Task(work, parts[name], partial(str, f"while making {name}")) for name in missing)
        keep_in_order(self.workers, tasks, keep, lambda: None)
        return made


keep_nothing = Keep()


class _Stage(Keep):
    def __init__(self, keep: Keep, stage: str) -> None:
        super().__init__(keep.workers)
        self._keep, self._stage = keep, stage

    def __call__(self, name: str, make: Callable[[], Arrays]) -> Arrays:
        return self._keep(f"{self._stage}: {name}", make)

    def has(self, name: str) -> bool:
        return self._keep.has(f"{self._stage}: {name}")


def within(keep: Keep, stage: str) -> Keep:
    """The same for one stage of the work, whose names may be those of other stages too."""
    return _Stage(keep, stage)


class Parts(Keep):
    """Keeps parts in a store, bit for bit.

    Args:
        store: where. Parts lie in its log of events.
        work: JSON-ready: what is computed. Only parts of equal work are taken.
        workers: see `Keep`.
    """

    def __init__(self, store: Store | Section, work: Mapping[str, Any], workers: Workers | None = None) -> None:
        super().__init__(workers)
        self._store = store
        self._kind = f"{RESULT}: part of {digest(work)[:16]}"
        with self._as_written():
            self._found = {str(event.payload["name"]): event.payload["arrays"] for event in store.events(self._kind)}

    def has(self, name: str) -> bool:
        """Whether the part of this name is kept, and was not given yet."""
        return name in self._found

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
