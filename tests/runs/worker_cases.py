"""An evaluator that workers build from a file, and that ends, hangs or raises in a worker when it is told to."""

from __future__ import annotations

import json
import math
import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fairmend.evaluation import Figure, Figures, Measurement
from fairmend.masks import Mask, Site, Space
from fairmend.runs.workers.service import place

SPACE = Space((Site("only", 12),), min_drop=0, max_drop=12)
FIGURES = Figures(Figure("toy_bias", "lower", "toy"), Figure("toy_utility", "higher", "toy"), parts=("score",))
AWFUL = 11  # the unit whose dropping does what the file says


class FileEvaluator:
    """Figures that follow from the weights in a JSON file, which whoever measures reads anew.

    Args:
        path: {"weights": [...], "once": what happens once when unit `AWFUL` is dropped in a worker: "", "die", "hang";
            "always": what happens every time, "raise" or "die" among them}.
        at_once: figures depend, in their last bits, on what shares a batch of so many.
    """

    space, figures = SPACE, FIGURES

    def __init__(self, path: Path, at_once: int = 1) -> None:
        self.path, self.at_once = path, at_once
        self.told = json.loads(path.read_text())

    def __reduce__(self) -> tuple[Any, ...]:
        return FileEvaluator, (self.path, self.at_once)

    def fingerprint(self) -> Mapping[str, Any]:
        return {"weights": self.told["weights"], "at_once": self.at_once}

    def measure(self, masks: Sequence[Mask]) -> list[Measurement]:
        made = []
        for start in range(0, len(masks), self.at_once):
            part = masks[start : start + self.at_once]
            shared = sum(mask.bits for mask in part) * 1e-15  # what a batch of other masks would change
            made += [self._one(mask, shared) for mask in part]
        return made

    def _one(self, mask: Mask, shared: float) -> Measurement:
        if mask.bits >> AWFUL & 1 and place() is not None:
            self._misbehave()
        time.sleep(self.told.get("seconds", 0.0))
        weights = self.told["weights"]
        score = math.fsum(weights[unit] for unit in mask.units()) + shared
        with self.path.with_suffix(".log").open("a") as log:
            log.write(f"{os.getpid()} {mask.bits}\n")
        return Measurement(abs(score), 1 - mask.size / 12, (score,), n=3, utility_se=0.1, seconds=0.5)

    def _misbehave(self) -> None:
        what, once = self.told.get("always", ""), self.path.with_suffix(".once")
        if self.told.get("once") and not once.exists():
            once.touch()
            what = self.told["once"]
        if what == "raise":
            raise ArithmeticError(f"unit {AWFUL} cannot be dropped")
        if what == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "hang":
            time.sleep(600)


def evaluator_in(folder: Path, at_once: int = 1, **told: Any) -> FileEvaluator:
    """An evaluator whose file lies in a folder."""
    path = folder / "evaluator.json"
    weights = [math.sin(1 + 3 * unit) for unit in range(SPACE.n_units)]
    path.write_text(json.dumps({"weights": weights, "seconds": 0.002, **told}))
    return FileEvaluator(path, at_once)
