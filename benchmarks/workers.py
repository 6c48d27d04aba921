"""What workers bring: the same collection by this process, by two processes and by two actors of Ray, in turns.

    OMP_NUM_THREADS=1 python benchmarks/workers.py --json workers.json

Subsets of SmolLM2's heads are measured on pronouns, as `fairmend lm collect smollm2 --bias pronouns` does. In every
turn each kind of workers makes a collection of its own, and a ratio is formed within a turn. Processes and actors have
started and loaded the model before; what that took is said apart. All collections must be the same.

On a machine that others use, two workers cannot be twice as fast as one. The CPU seconds of this process and everything
that it started tell more then: two idle processors bring twice what one process needs of those that the workers need.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch

import fairmend
from fairmend.language.models.models import load_model
from fairmend.language.prompts.benchmarks import choice_benchmark
from fairmend.language.protocols import ReadingSettings
from fairmend.language.repair.settings import RepairSettings
from fairmend.language.repair.subject import Subject
from fairmend.language.studies.collecting import collect, open_collection
from fairmend.masks import Mask
from fairmend.runs.workers import Task, Workers
from fairmend.runs.workers.opening import open_workers

TRIPS, WAITS, WAIT = 200, 40, 0.25


def cpu_seconds() -> float:
    """Of this process and of everything that it started."""
    me = psutil.Process()
    spent = 0.0
    for each in (me, *me.children(recursive=True)):
        with suppress(psutil.Error):  # it has ended
            times = each.cpu_times()
            spent += times.user + times.system
    return spent


def collected(
    subject: Subject, settings: RepairSettings, samples: int, workers: Workers | None
) -> tuple[float, float, list[tuple[Mask, Any]]]:
    """Seconds and CPU seconds of a collection, and what is in it."""
    with tempfile.TemporaryDirectory() as folder:
        store = open_collection(Path(folder) / "collected", subject, settings)
        with closing(store):
            begun, spent = time.perf_counter(), cpu_seconds()
            collect(subject, settings, store, samples=samples, workers=workers)
            seconds = time.perf_counter() - begun
            return seconds, cpu_seconds() - spent, [row for name in store.contexts() for row in store.context(name)]


def round_trip(workers: Workers) -> float:
    """Seconds that a task without work takes, one after the other."""
    begun = time.perf_counter()
    for _ in range(TRIPS):
        list(workers.do([Task(int, (), partial(str, "nothing"))]))
    return (time.perf_counter() - begun) / TRIPS


def waiting(workers: Workers) -> float:
    """How many times as fast as one worker they are at tasks that only wait, which no other program disturbs."""
    begun = time.perf_counter()
    list(workers.do(Task(time.sleep, (WAIT,), partial(str, "waiting")) for _ in range(WAITS)))
    return WAIT * WAITS / (time.perf_counter() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--subsets", type=int, default=24)
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    lm = load_model("smollm2", device="cpu")
    subject = Subject(lm, choice_benchmark("pronouns"))
    settings = RepairSettings(prompts=given.prompts, reading=ReadingSettings(tokens=given.tokens))
    found: dict[str, Any] = {"start": {}, "seconds": {}, "cpu": {}, "trip": {}, "waiting": {}}
    with ExitStack() as opened:
        kinds: dict[str, Workers | None] = {"one process": None}
        for kind, name in (("processes", str(given.workers)), ("Ray", "ray")):
            begun = time.perf_counter()
            workers = opened.enter_context(closing(open_workers(name, most=given.workers)))
            # Other prompts, so that nothing is known already but the model.
            collected(subject, replace(settings, seed=99), 2 * given.workers + 1, workers)
            found["start"][kind] = time.perf_counter() - begun
            found["trip"][kind] = round_trip(workers)
            found["waiting"][kind] = waiting(workers)
            kinds[kind] = workers
        first = None
        for turn in range(given.turns):
            for kind, some in kinds.items():
                # A seed per turn, so that no turn finds a text read already.
                seconds, spent, rows = collected(subject, replace(settings, seed=turn), given.subsets, some)
                found["seconds"].setdefault(kind, []).append(seconds)
                found["cpu"].setdefault(kind, []).append(spent)
                first = rows if kind == "one process" else first
                assert rows == first, f"{kind} measured something else"
                print(
                    f"turn {turn + 1}: {kind} {seconds:.1f} s, {spent:.1f} CPU seconds, load {os.getloadavg()[0]:.1f}",
                    flush=True,
                )
    alone = found["seconds"]["one process"]
    titles = ("ratio to one process, median (range)", "CPU seconds to one process's")
    titles += ("ratio where tasks only wait", "round trip", "start")
    print(f"\n| {given.workers} workers | {' | '.join(titles)} |")
    print("|---|---|---:|---:|---:|---:|")
    for kind in found["trip"]:
        ratios = sorted(one / other for one, other in zip(alone, found["seconds"][kind], strict=True))
        found.setdefault("ratio", {})[kind] = ratios
        times = statistics.median(
            o / one for one, o in zip(found["cpu"]["one process"], found["cpu"][kind], strict=True)
        )
        print(
            f"| {kind} | **{statistics.median(ratios):.2f}** ({ratios[0]:.2f} to {ratios[-1]:.2f}) | {times:.2f} | "
            f"{found['waiting'][kind]:.2f} | "
            f"{1000 * found['trip'][kind]:.1f} ms | {found['start'][kind]:.1f} s |"
        )
    print(
        f"\n{given.subsets} subsets, {given.prompts} items, {given.tokens} tokens; fairmend {fairmend.__version__}, "
        f"torch {torch.__version__}, {os.cpu_count()} processors, load {os.getloadavg()}"
    )
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
