"""What happened in a run, and the part of a store that is one of several runs in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fairmend.evaluation import Evaluator
from fairmend.runs.context import Context

if TYPE_CHECKING:
    from fairmend.runs.store import Store


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened during a run. `time` is in seconds since 1970."""

    id: int
    time: float
    kind: str
    payload: Mapping[str, Any]


class Section:
    """A part of a store for one of several runs in it, see `Store.section`. Events are those of the whole store."""

    def __init__(self, store: Store, name: str) -> None:
        self.store, self.name = store, name

    def context(self, name: str, evaluator: Evaluator | None = None) -> Context:
        """The measurements that this run made under `name`, see `Store.context`."""
        return self.store.context(f"{self.name}: {name}", evaluator)

    def record(self, kind: str, payload: Mapping[str, Any]) -> int:
        """Commit an event, see `Store.record`."""
        return self.store.record(kind, payload)

    def events(self, kind: str | None = None) -> list[Event]:
        """What happened, see `Store.events`."""
        return self.store.events(kind)
