"""How many moves per CPU second annealing on surrogates makes, against one mask at a time in torch in the same run.

    OMP_NUM_THREADS=1 python benchmarks/surrogate_annealing.py --json moves.json

Ours is `fairmend.surrogates.annealing.anneal` on a pair of networks of the given shape (one for the bias, one for the
perplexity, as Attention Pruning has them), or on one network and a constant, which is what the published moves per
second of one network compare with. Naive is annealing as one would write it down first: a Python loop that flips a bit
of a tensor, asks both networks, and accepts or refuses. Both anneal from the untouched mask with the same schedule, on
one thread, in turns, and are timed in CPU seconds. Compiling the kernel is not counted: it happens once per
installation.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from published_networks import circumstances, in_words
from threadpoolctl import threadpool_limits

from fairmend.costs import WeightedSum
from fairmend.evaluation import Figure, Figures
from fairmend.masks import Site, Space
from fairmend.surrogates.annealing import anneal
from fairmend.surrogates.families.base import FixedPredictor
from fairmend.surrogates.families.forms import Form
from fairmend.surrogates.fitting import FittedPair
from fairmend.surrogates.samples import Scale

FIGURES = Figures(Figure("bias", "lower", "benchmark"), Figure("perplexity", "lower", "benchmark"))
COST = WeightedSum(FIGURES, 0.5, (0.0, 1.0), (0.0, 1.0))
HOT, COLD = 0.05, 0.0005
BARS = {"moves_per_second": 500_000, "moves_per_second_of_chains": 1_000_000, "ratio": 50}
"""What the project set itself, for one 270-64-1 network."""


def random_network(rng: np.random.Generator, n_units: int, hidden: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Layers n_units-hidden-1 whose outputs vary by some tenths between masks."""
    first = rng.normal(0.0, 0.3, (n_units, hidden))
    return [(first, rng.normal(0.0, 0.3, hidden)), (rng.normal(0.0, 0.05, (hidden, 1)), np.zeros(1))]


def in_torch(layers: list[tuple[np.ndarray, np.ndarray]]) -> torch.nn.Module:
    """The same network as torch modules."""
    modules: list[torch.nn.Module] = []
    for weight, bias in layers:
        linear = torch.nn.Linear(*weight.shape)
        linear.load_state_dict({"weight": torch.tensor(weight.T.copy()), "bias": torch.tensor(bias)})
        modules += [linear, torch.nn.ReLU()]
    return torch.nn.Sequential(*modules[:-1]).eval()


@torch.no_grad()
def naive_moves(networks: list[torch.nn.Module], n_units: int, largest: int, moves: int, seed: int) -> float:
    """CPU seconds of annealing one mask at a time in torch."""
    rng = np.random.default_rng(seed)
    begun = time.process_time()
    mask, size = torch.zeros(n_units), 0
    current = sum(0.5 * float(network(mask)) for network in networks)
    ratio = (COLD / HOT) ** (1 / max(1, moves - 1))
    for step in range(moves):
        full = size == largest
        unit = int(torch.nonzero(mask)[int(rng.random() * size)]) if full else int(rng.random() * n_units)
        mask[unit] = 1 - mask[unit]
        value = sum(0.5 * float(network(mask)) for network in networks)
        if value <= current or rng.random() < math.exp((current - value) / (HOT * ratio**step)):
            current = value
            size += 1 if mask[unit] else -1
        else:
            mask[unit] = 1 - mask[unit]
    return time.process_time() - begun


def our_moves(pair: FittedPair, space: Space, moves: int, chains: int, seed: int) -> float:
    """CPU seconds of the compiled annealing."""
    begun = time.process_time()
    anneal(
        pair,
        space,
        COST,
        seed=seed,
        states=moves + 1,
        chains=chains,
        start_temperature=HOT,
        end_temperature=COLD,
    )
    return time.process_time() - begun


def race(units: int, hidden: int, largest: int, moves: int, naive: int, repetitions: int) -> list[dict[str, Any]]:
    """Both in turns, with one network and with a pair, one chain and several."""
    rng = np.random.default_rng(0)
    layers = [random_network(rng, units, hidden) for _ in range(2)]
    forms = [Form.network(one) for one in layers]
    nothing = Form.additive(0.0, np.zeros(units))
    space, scale = Space((Site("heads", units),), max_drop=largest), Scale(0.0, 1.0)
    rows = []
    for name, second in (("one network", nothing), ("pair", forms[1])):
        pair = FittedPair(FixedPredictor(forms[0]), FixedPredictor(second), scale, scale, 0, {})
        networks = [in_torch(one) for one in layers[: 1 if second is nothing else 2]]
        for chains in (1, 64):
            our_moves(pair, space, 1000, chains, 0)  # compiles
            ours, theirs, ratios = [], [], []
            for repetition in range(repetitions):
                seconds = naive_moves(networks, units, largest, naive, repetition)
                mine = our_moves(pair, space, moves, chains, repetition)
                seconds += naive_moves(networks, units, largest, naive, repetition + 1000)
                ours.append(moves / mine)
                theirs.append(2 * naive / seconds)
                ratios.append(ours[-1] / theirs[-1])
            rows.append(
                {
                    "surrogates": name,
                    "shape": f"{units}-{hidden}-1",
                    "chains": chains,
                    "moves_per_second": float(np.median(ours)),
                    "naive_moves_per_second": float(np.median(theirs)),
                    "ratio": float(np.median(ratios)),
                    "ratios": [round(ratio, 1) for ratio in ratios],
                }
            )
            print(f"{name}, {chains} chains: {rows[-1]['moves_per_second']:,.0f} moves/s", flush=True)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The results in Markdown."""
    lines = [
        "| surrogates | shape | chains | ours, moves/s | one at a time in torch, moves/s | ratio (range) |",
        "|---|---|---:|---:|---:|---:|",
    ]
    show: Callable[[float], str] = "{:,.0f}".format
    for row in rows:
        lines.append(
            f"| {row['surrogates']} | {row['shape']} | {row['chains']} | {show(row['moves_per_second'])} "
            f"| {show(row['naive_moves_per_second'])} | **{show(row['ratio'])}** "
            f"({show(min(row['ratios']))} to {show(max(row['ratios']))}) |"
        )
    return "\n".join(lines)


def main() -> None:
    """Race networks of one shape."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--units", type=int, default=270)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--largest", type=int, default=54, help="most dropped units")
    parser.add_argument("--moves", type=int, default=2_000_000)
    parser.add_argument("--naive-moves", type=int, default=5_000, help="moves of a naive turn")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--json", type=Path, help="where to write all figures")
    options = parser.parse_args()
    facts = circumstances()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        rows = race(
            options.units, options.hidden, options.largest, options.moves, options.naive_moves, options.repetitions
        )
    print(f"\n{table(rows)}\n\n{in_words(facts)}")
    if options.json:
        options.json.write_text(json.dumps({"circumstances": facts, "bars": BARS, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
