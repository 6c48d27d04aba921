"""A toy searcher and a toy evaluator: everything a run needs, with no model."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fairmend.evaluation import Figure, Figures, Measurement
from fairmend.masks import Dial, Mask, Site, Space

SPACE = Space((Site("first", 10), Site("second", 6)), min_drop=1, max_drop=12)
DIALLED = Space(SPACE.sites, min_drop=1, max_drop=12, dials=(Dial("shift", -1.0, 1.0, 0.1),))
FIGURES = Figures(Figure("toy_bias", "lower", "toy"), Figure("toy_utility", "higher", "toy"), parts=("sum", "product"))


class ToyEvaluator:
    """Figures that any mask has by arithmetic; a mask that drops unit 0 and unit 1 breaks the toy model (NaN).

    Args:
        seconds: pause per mask.
        journal: a file to which each measured mask is written at once, as "time bits" lines.
        fails_on: a unit whose dropping raises.
        ctrl_c_after: seconds from the first mask to a Ctrl-C, at whatever moment that is.
    """

    def __init__(
        self,
        space: Space = SPACE,
        seed: int = 0,
        seconds: float = 0.0,
        journal: Path | None = None,
        fails_on: int | None = None,
        ctrl_c_after: float | None = None,
    ) -> None:
        self.space = space
        self.figures = FIGURES
        self.measured: list[Mask] = []
        self.batches: list[int] = []
        self._seed = seed
        self._weights = np.random.default_rng(seed).normal(size=space.n_units)
        self._seconds = seconds
        self._journal = None if journal is None else os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._fails_on = fails_on
        self._ctrl_c_after = ctrl_c_after

    def fingerprint(self) -> Mapping[str, Any]:
        return {"toy": {"seed": self._seed, "scale": 1.0}, "data": "none"}

    def measure(self, masks: Sequence[Mask]) -> list[Measurement]:
        self.batches.append(len(masks))
        return [self._one(mask) for mask in masks]

    def _one(self, mask: Mask) -> Measurement:
        if self._ctrl_c_after is not None:
            threading.Timer(self._ctrl_c_after, os.kill, (os.getpid(), signal.SIGINT)).start()
            self._ctrl_c_after = None
        if self._fails_on is not None and mask.bits >> self._fails_on & 1:
            raise ArithmeticError(f"unit {self._fails_on} cannot be dropped")
        if self._seconds:
            time.sleep(self._seconds)
        self.measured.append(mask)
        if self._journal is not None:
            os.write(self._journal, f"{time.monotonic()} {mask.bits}\n".encode())
        score = float(self._weights[list(mask.units())].sum()) + sum(mask.dials)
        bias = math.nan if mask.bits & 3 == 3 else abs(score)
        return Measurement(bias, 1.0 - mask.size / 16, (score, score * mask.size), n=7, utility_se=0.1, seconds=0.5)


class ToySearcher:
    """Annealing in a few lines: flips one unit at a time, `batch` flips per ask, `states` in all."""

    def __init__(self, space: Space = SPACE, seed: int = 0, states: int = 100, batch: int = 1) -> None:
        self.space = space
        self.states = states
        self.batch = batch
        self.seed = seed
        self.told: list[tuple[int, float]] = []
        self._rng = np.random.default_rng(seed)
        self._current, self._cost = space.untouched(), math.inf
        self.best, self.best_cost = space.untouched(), math.inf

    def settings(self) -> Mapping[str, Any]:
        return {"name": "toy annealing", "seed": self.seed, "states": self.states, "batch": self.batch}

    def ask(self) -> list[Mask]:
        if len(self.told) >= self.states:
            return []
        if not self.told:
            return [self.space.untouched()] * self.batch
        asked: list[Mask] = []
        while len(asked) < self.batch:
            mask = self._current.flip(int(self._rng.integers(self.space.n_units)))
            if self.space.admits(mask):
                asked.append(mask)
        return asked

    def tell(self, masks: Sequence[Mask], measurements: Sequence[Measurement]) -> None:
        for mask, measurement in zip(masks, measurements, strict=True):
            self.told.append((mask.bits, measurement.bias))
            cost = measurement.bias if measurement.is_finite else math.inf
            temperature = 0.5 * (1 - len(self.told) / self.states) + 1e-9
            if cost <= self._cost or self._rng.random() < math.exp((self._cost - cost) / temperature):
                self._current, self._cost = mask, cost
            if cost < self.best_cost:
                self.best, self.best_cost = mask, cost


class ListSearcher:
    """Asks for what it was given, ask by ask."""

    def __init__(self, *asks: Sequence[Mask]) -> None:
        self._asks = list(asks)
        self.answers: list[Sequence[Measurement]] = []

    def settings(self) -> Mapping[str, Any]:
        return {"name": "list"}

    def ask(self) -> Sequence[Mask]:
        return self._asks[len(self.answers)] if len(self.answers) < len(self._asks) else ()

    def tell(self, masks: Sequence[Mask], measurements: Sequence[Measurement]) -> None:
        self.answers.append(measurements)


class ListProgress:
    """Keeps what it was shown."""

    def __init__(self) -> None:
        self.started: list[tuple[int | None, str]] = []
        self.updates: list[tuple[int, int | None, float, float | None, str]] = []
        self.closed = 0

    def start(self, total: int | None, title: str) -> None:
        self.started.append((total, title))

    def update(self, done: int, total: int | None, rate: float, eta_seconds: float | None, note: str) -> None:
        self.updates.append((done, total, rate, eta_seconds, note))

    def close(self) -> None:
        self.closed += 1
