"""How far collect, NSGA-II and active rounds scale: a simulation of 1 to 512 workers, not a measurement.

    python benchmarks/scale_simulation.py --seconds 2.0 --trip 0.004

A discrete-event simulation of what `fairmend.runs.workers` does: one driver hands a part to whoever is free, takes the
results one by one, and hands out the next; a searcher asks again once all of its last ask is there. What goes in is
measured: seconds per mask, the round trip and the driver's own seconds per part (`workers.py`), the seconds between two
asks (`--asks`), and how much the seconds per mask vary. What is left out: workers that start late or are lost, and a
disk or network that all share.
"""

from __future__ import annotations

import argparse
import heapq
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

WORKERS = tuple(2**power for power in range(10))
ENOUGH = 0.5  # of efficiency: below, more workers are mostly idle


class Search(NamedTuple):
    """Asks of a search: their sizes, and the driver's seconds before each."""

    name: str
    asks: Sequence[int]
    between: float


def searches(masks: int, fit: float, breed: float) -> list[Search]:
    """The searches that are simulated, each of about so many masks."""
    first = masks // 5
    rounds = (masks - first) // 8
    return [
        Search("collect", [masks], 0.0),
        Search("random (asks of 256)", [256] * (masks // 256), 0.0),
        Search("NSGA-II, population 32", [32] * (masks // 32), breed),
        Search("NSGA-II, population 128", [128] * (masks // 128), breed),
        Search("active, rounds of 8", [first, *[8] * rounds], fit),
        Search("active, rounds of 64", [first, *[64] * (rounds // 8)], fit),
        Search("annealing", [1] * masks, 0.0),
    ]


def simulate(search: Search, workers: int, mask: float, varies: float, trip: float, driver: float, seed: int) -> float:
    """Seconds that a search takes.

    Args:
        search: what it asks for.
        workers: how many measure.
        mask, varies: mean seconds per mask, and their standard deviation as a share of it (log-normal).
        trip: seconds from handing out a part to its result, beside the measuring.
        driver: seconds of the driver per part, for handing out and keeping; it does one thing at a time.
        seed: of the seconds.
    """
    rng = np.random.default_rng(seed)
    spread = np.sqrt(np.log1p(varies**2))
    clock = 0.0
    for size in search.asks:
        clock += search.between
        durations = mask * np.exp(spread * rng.standard_normal(size) - spread**2 / 2)
        if size == 1:
            clock += float(durations[0])  # measured by the driver itself
            continue
        clock = _asked(durations.tolist(), workers, trip, driver, clock)
    return clock


def _asked(durations: Sequence[float], workers: int, trip: float, driver: float, clock: float) -> float:
    """When all results of an ask are kept, if it was asked at `clock`."""
    coming: list[float] = []  # when each result that is on its way arrives
    left: Iterator[float] = iter(durations)
    for duration in left:
        clock += driver / 2
        heapq.heappush(coming, clock + trip + duration)
        if len(coming) == workers:
            break
    while coming:
        clock = max(clock, heapq.heappop(coming)) + driver / 2
        following = next(left, None)
        if following is not None:
            clock += driver / 2
            heapq.heappush(coming, clock + trip + following)
    return clock


def measured_asks(states: int = 120) -> tuple[float, float]:
    """Seconds of the driver between two asks, of active search and of NSGA-II, on a simulated model of 270 heads."""
    from simulation import FIGURES, SimulatedModel

    from fairmend.search import Genetic
    from fairmend.surrogates.active import Active
    from fairmend.surrogates.objectives import floored_sum

    rng = np.random.default_rng(0)
    model = SimulatedModel(rng.normal(scale=0.03, size=270), np.abs(rng.normal(scale=0.03, size=270)), seed=0)
    found = []
    for searcher in (
        Active(model.space, FIGURES, floored_sum(FIGURES, 0.5, 1.2), seed=0, states=states, patience=0),
        Genetic(model.space, FIGURES, seed=0, states=10 * states),
    ):
        gaps: list[float] = []
        begun = time.perf_counter()
        while masks := searcher.ask():
            gaps.append(time.perf_counter() - begun)
            made = model.measure(masks)
            begun = time.perf_counter()
            searcher.tell(masks, made)
        found.append(float(np.median(gaps[2:])))
    return found[0], found[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="per mask")
    parser.add_argument("--varies", type=float, default=0.1, help="standard deviation of these, as a share")
    parser.add_argument("--trip", type=float, default=0.004, help="seconds of a round trip")
    parser.add_argument("--driver", type=float, default=0.001, help="seconds of the driver per part")
    parser.add_argument("--asks", type=float, nargs=2, help="seconds before each ask: active, NSGA-II; else measured")
    parser.add_argument("--masks", type=int, default=4096)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    fit, breed = given.asks or measured_asks()
    print(
        f"Simulated, not measured: {given.masks:,} masks of {given.seconds:g} s (+- {given.varies:.0%}), round trip "
        f"{1000 * given.trip:g} ms, driver {1000 * given.driver:g} ms a part, {fit:.2f} s before a round of active "
        f"search, {1000 * breed:.1f} ms before a generation. Efficiency: speed over that of one worker, per worker.\n"
    )
    print("| search |" + "".join(f" {workers} |" for workers in WORKERS) + " half idle from |")
    print("|---|" + "---:|" * (len(WORKERS) + 1))
    found = {}
    for search in searches(given.masks, fit, breed):
        options = (given.seconds, given.varies, given.trip, given.driver, 0)
        seconds = [simulate(search, workers, *options) for workers in WORKERS]
        shares = [seconds[0] / taken / workers for workers, taken in zip(WORKERS, seconds, strict=True)]
        idle = next((workers for workers, share in zip(WORKERS, shares, strict=True) if share < ENOUGH), None)
        found[search.name] = {"seconds": seconds, "efficiency": shares, "half_idle_from": idle}
        cells = "".join(f" {share:.0%} |" for share in shares)
        print(f"| {search.name} |{cells} {idle or f'beyond {WORKERS[-1]}'} |")
    if given.json is not None:
        given.json.write_text(json.dumps({"options": vars(given) | {"json": None}, "found": found}, indent=2))


if __name__ == "__main__":
    main()
