"""Measured subsets of heads, collected on their own: for surrogates that several repairs learn from.

A collection is a run whose store has the subsets under one name and repeats of some under another. It may be stopped
and continued at any time, with another budget: subsets come in blocks, each a design of its own, so that more of them
never change the earlier ones.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from fairmend.errors import InputError, RunError
from fairmend.language.records.run_directories import open_run
from fairmend.language.repair.head_ranking import sparing
from fairmend.language.repair.settings import RepairSettings
from fairmend.language.repair.subject import Subject
from fairmend.language.repair.subset_search import CONTEXT, SubsetEvaluator, collecting_evaluator
from fairmend.masks import Mask
from fairmend.runs.budgets import Stopped
from fairmend.runs.progress import Meter, Progress
from fairmend.runs.store import Store
from fairmend.runs.workers import Done, InProcess, Task, Workers
from fairmend.runs.workers.measuring import Measuring, keep_in_order
from fairmend.search import SpreadSampling
from fairmend.search.base import require_count
from fairmend.surrogates.validation import MeasurementNoise, noise_from_repeats

KIND = "language collection"
REPEATS = "subsets, measured again"
_BLOCK = 100
_REPEAT_EVERY = 12  # subsets, one is measured again to learn the noise


@dataclass(frozen=True, slots=True)
class Collected:
    """How far a collection is.

    Attributes:
        samples: subsets measured so far, the empty one included.
        repeats: how many of them were measured again.
        new: measured in this session, repeats included.
        seconds, model_seconds: duration of this session, and how much was spent on measuring, by all workers together.
        stopped: "evaluations" when all samples are there, else "seconds" or "interrupted".
    """

    samples: int
    repeats: int
    new: int
    seconds: float
    model_seconds: float
    stopped: Stopped


def open_collection(
    out: str | Path, subject: Subject, settings: RepairSettings, request: Mapping[str, Any] | None = None
) -> Store:
    """Start a collection in a directory, or open the same one there to go on with it, with whatever budget.

    Args:
        out: the directory; made if it does not exist.
        subject: the model, and what it is measured on.
        settings: how subsets are measured; the samples of `settings.subsets` do not count.
        request: see `open_run`.

    Raises:
        RunError: the directory holds another run (what differs is named) or other files, or cannot be written.
    """
    return open_run(out, subject, collecting_settings(settings), kind=KIND, request=request)


def collecting_settings(settings: RepairSettings) -> RepairSettings:
    """The settings with everything that measuring subsets does not depend on at its default."""
    kept = replace(
        type(settings.subsets)(),
        eta=settings.subsets.eta,
        fraction=settings.subsets.fraction,
        min_drop=settings.subsets.min_drop,
        max_drop=settings.subsets.max_drop,
    )
    return RepairSettings(
        prompts=settings.prompts,
        split_by=settings.split_by,
        sampling=settings.sampling,
        group_mean=settings.group_mean,
        reading=settings.reading,
        subsets=kept,
        seed=settings.seed,
    )


def collect(
    subject: Subject,
    settings: RepairSettings,
    store: Store,
    *,
    samples: int | None = None,
    seconds: float | None = None,
    progress: Progress | None = None,
    workers: Workers | None = None,
) -> Collected:
    """Measure subsets of heads on a part of the search half until a number of them or a time is reached.

    Sizes are spread over the limits with a share of small subsets, and heads are dealt evenly, see `SpreadSampling`. A
    share of the subsets is measured again with other prompts and other noise, so that the noise is known.

    Args:
        subject: the model, and what it is measured on.
        settings: as for `repair_model`; `settings.subsets` has the share and the limits.
        store: from `open_collection`.
        samples: subsets in all, those of earlier sessions and the empty one included.
        seconds: of this session.
        progress: where to show how far it is.
        workers: who measures; None is this process. What is measured, in which order, does not depend on them.

    Raises:
        InputError: neither samples nor seconds, or settings that cannot work.
        ModelError, DataError, RunError: see `repair_model`.
    """
    if samples is None and seconds is None:
        raise InputError("collecting needs an end: give the number of samples, or the seconds that it may take")
    wanted = math.inf if samples is None else require_count("samples", samples, 2)
    begun = perf_counter()
    evaluators = _evaluators(subject, settings)
    works = [Measuring(evaluator) for evaluator in evaluators]
    contexts = [store.context(name, each) for name, each in zip((CONTEXT, REPEATS), evaluators, strict=True)]
    known = len(contexts[0])
    meter = Meter(progress, "subsets of heads", samples, known, None)
    stopped: Stopped = "evaluations"
    new, model_seconds = 0, 0.0

    def tasks() -> Iterator[Task]:
        nonlocal stopped
        planned: tuple[set[Mask], set[Mask]] = (set(), set())  # and perhaps still being measured
        for repeated, masks in _plan(evaluators[0], settings.seed, wanted):
            missing = [mask for mask in masks if contexts[repeated].get(mask) is None and mask not in planned[repeated]]
            planned[repeated].update(missing)
            if not missing:
                continue
            if seconds is not None and perf_counter() - begun >= seconds:
                stopped = "seconds"
                return
            described = f"while measuring {len(missing)} subsets of heads"
            yield Task(works[repeated], (missing,), partial(str, described), size=len(missing))

    def keep(done: Done) -> None:
        nonlocal new, model_seconds
        (masks,) = done.task.arguments
        contexts[done.task.work is works[1]].put(masks, done.result)
        new += len(masks)
        model_seconds += done.seconds

    def look() -> None:
        spent = perf_counter() - begun
        meter.show(len(contexts[0]), spent, None if seconds is None else seconds - spent)

    try:
        keep_in_order(workers or InProcess(), tasks(), keep, look)
        look()
    except KeyboardInterrupt:
        stopped = "interrupted"
    finally:
        store.flush()
        meter.close()
    counts = [len(context) for context in contexts]
    return Collected(counts[0], counts[1], new, perf_counter() - begun, model_seconds, stopped)


def measured_noise(store: Store) -> MeasurementNoise | None:
    """The noise of a measured subset, from those measured twice; None where they are too few.

    Raises:
        RunError: the store is no collection.
    """
    if CONTEXT not in store.contexts():
        raise RunError(f"{store.path} has no measured subsets: collect some with fairmend lm collect")
    if REPEATS not in store.contexts():
        return None
    first, second = store.context(CONTEXT), store.context(REPEATS)
    pairs = [(made, again) for mask, again in second if (made := first.get(mask)) is not None]
    try:
        return noise_from_repeats([made for made, _ in pairs], [again for _, again in pairs], first.figures)
    except InputError:
        return None


def _evaluators(subject: Subject, settings: RepairSettings) -> tuple[SubsetEvaluator, SubsetEvaluator]:
    """What measures subsets, and what measures some of them again: other prompts and other noise, the same text."""
    search, other = sparing(subject.searching(settings), settings), replace(settings, seed=settings.seed + 1)
    repeated = subject.evaluator(search.prompts, search.reading, other)
    return collecting_evaluator(search, settings), collecting_evaluator(repeated, other)


def _plan(evaluator: SubsetEvaluator, seed: int, samples: float) -> Iterator[tuple[bool, list[Mask]]]:
    """What to measure, in order: (whether again, subsets), the empty one first, each block's repeats after it."""
    space, at_once = evaluator.space, evaluator.masks_at_once
    yield False, [space.untouched()]
    left = samples - 1
    for number in itertools.count():
        if left < 1:
            return
        # A seed of its own for every block, so that a longer collection begins like a shorter one.
        design = SpreadSampling(
            space, seed=int(np.random.SeedSequence([seed, number]).generate_state(1)[0]), samples=_BLOCK + 1
        )
        block = list(design.masks())[: int(min(left, _BLOCK))]
        left -= len(block)
        for masks, repeated in ((block, False), (block[::_REPEAT_EVERY], True)):
            for start in range(0, len(masks), at_once):
                yield repeated, masks[start : start + at_once]
