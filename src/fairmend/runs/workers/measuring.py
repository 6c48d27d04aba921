"""Measuring as tasks: an evaluator that is built anew by each worker, and measurements in the order of the masks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from typing import Any, TypeAlias

from fairmend.errors import RunError
from fairmend.evaluation import Evaluator, Measurement
from fairmend.masks import Mask
from fairmend.records import differences
from fairmend.runs.workers.tasks import Done, Task, Workers

Keep: TypeAlias = Callable[[Done], None]
"""Called with each part as soon as all parts before it are done, and with what else is done when an error ends them."""


class Measuring:
    """Measures masks: the work of tasks whose argument is a sequence of masks.

    What is sent to a worker is the evaluator as it describes itself when it is pickled, without weights, and its
    fingerprint, which the one that is built there must have too.

    Args:
        evaluator: who measures.
    """

    def __init__(self, evaluator: Evaluator) -> None:
        self.evaluator = evaluator

    def __call__(self, masks: Sequence[Mask]) -> list[Measurement]:
        """One measurement per mask, in order.

        Raises:
            RunError: the evaluator broke its promise of one measurement per mask.
        """
        measurements = self.evaluator.measure(masks)
        if len(measurements) != len(masks):
            raise RunError(
                f"{type(self.evaluator).__name__} returned {len(measurements)} measurements for {len(masks)} masks; "
                "an evaluator must return one per mask, in order"
            )
        return measurements

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrived, (self.evaluator, _plain(self.evaluator))


def keep_in_order(workers: Workers, tasks: Iterable[Task], keep: Keep, look: Callable[[], None]) -> None:
    """Do tasks, and keep what is done in the order of the tasks.

    Raises:
        Exception, KeyboardInterrupt: what ended them, once everything done is kept.
    """
    waiting: dict[int, Done] = {}
    following = 0
    try:
        with closing(workers.do(tasks, look)) as results:
            for done in results:
                waiting[done.number] = done
                while following in waiting:
                    keep(waiting.pop(following))
                    following += 1
    finally:
        for number in sorted(waiting):
            keep(waiting[number])


def _arrived(evaluator: Evaluator, fingerprint: Mapping[str, Any]) -> Measuring:
    """What measures in a worker.

    Raises:
        RunError: it would measure something else than whoever sent it.
    """
    changed = differences(fingerprint, _plain(evaluator))
    if changed:
        raise RunError(
            f"a worker would measure something else than this process: {'; '.join(changed[:5])}. Give the workers the "
            "same files, versions of packages and kind of device"
        )
    return Measuring(evaluator)


def _plain(evaluator: Evaluator) -> Any:
    return json.loads(json.dumps(evaluator.fingerprint()))
