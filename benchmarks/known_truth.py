"""How far each method ends from the best mask, at equal numbers of measured masks, on a model whose truth is known.

    OMP_NUM_THREADS=1 python benchmarks/known_truth.py --data ../shared/data --json truth.json

The model is simulated: what every head does alone comes from the scores that FASP published for GPT-2, drawn to the
true spread between heads; heads interact, and measurements are as noisy, as was measured on real models (see
`simulation.py`). All methods minimise the same cost, half of the bias relative to the untouched model
and half of the rise in perplexity, and keep the perplexity within 1.25 of the untouched one. Regret is the true cost of
the mask that a method ends with, minus that of the best mask known: the best that annealing on the truth itself, or any
method in any run, has found. A mask whose true perplexity breaks the floor counts as the untouched mask, because a
repair would refuse it; a further column takes such masks at their weighted sum, as if there were no floor.

Every seed is another model, with other interactions and other noise. Intervals are 95 % t-intervals over seeds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import pandas as pd
from published_networks import circumstances, default_folder, in_words
from simulation import FIGURES, SimulatedModel
from threadpoolctl import threadpool_limits

from fairmend.costs import Cost, UtilityFloor
from fairmend.evaluation import Measurement
from fairmend.masks import Mask
from fairmend.search import Annealing, Genetic, PruningRule, Searcher, UniformSampling
from fairmend.statistics import t_interval
from fairmend.surrogates.active import Active
from fairmend.surrogates.attention_pruning import AttentionPruning
from fairmend.surrogates.objectives import floored_sum

TRUE_SPREAD = 0.018  # of single-head effects on the bias: between .015 and .021
FLOOR = 1.25
ALPHAS = tuple(round(0.02 * k, 2) for k in range(1, 11))
MAKE_COST = floored_sum(FIGURES, 0.5, FLOOR)


def published_effects(data: Path, model: str) -> tuple[np.ndarray, np.ndarray]:
    """Effects of each head alone on the bias and on the logarithm of the perplexity, from FASP's published scores.

    The published bias is one noisy measurement per head; drawn to the true spread it has the right size. The file does
    not have the untouched model's perplexity: the tenth percentile stands in.
    """
    scores = pd.read_csv(data / "fasp" / "head_scores.csv.gz")
    scores = scores[scores["model"] == model].sort_values("head")
    bias = scores["bias_without_gender_and_sex"].to_numpy()
    centred = np.clip(bias - np.median(bias), -0.1, 0.1)
    loss = scores["ppl_without"].to_numpy()
    return centred * TRUE_SPREAD / centred.std(), np.log(loss / np.quantile(loss, 0.1))


def simulated(effects: tuple[np.ndarray, np.ndarray], seed: int) -> SimulatedModel:
    """GPT-2 as published before repair (bias .402, perplexity 43.6), at most a fifth of its heads dropped."""
    n_heads = len(effects[0])
    return SimulatedModel(
        *effects, bias=0.402, perplexity=43.6, max_drop=n_heads // 5, seed=seed, noise_seed=1000 + seed
    )


def drive(searcher: Searcher, measure: Callable[[list[Mask]], list[Measurement]]) -> dict[Mask, Measurement]:
    """Let a searcher run to its end; everything that it was told."""
    told: dict[Mask, Measurement] = {}
    while masks := list(searcher.ask()):
        measurements = measure(masks)
        searcher.tell(masks, measurements)
        told.update(zip(masks, measurements, strict=True))
    return told


def cheapest(told: dict[Mask, Measurement], cost: Cost) -> Mask:
    """The mask of the least measured cost."""
    return min(told, key=lambda mask: cost(told[mask]))


def random_search(model: SimulatedModel, states: int, seed: int) -> tuple[Mask, int]:
    """The best measured of uniform random masks."""
    told = drive(UniformSampling(model.space, seed=seed, samples=states), model.measure)
    return cheapest(told, MAKE_COST(told[model.space.untouched()])), len(told)


def single_scores(model: SimulatedModel) -> dict[str, np.ndarray]:
    """Bias and perplexity without each head, every head measured alone, and both of the untouched model last."""
    space = model.space
    made = model.measure([*(space.mask([unit]) for unit in range(space.n_units)), space.untouched()])
    return {"bias": np.array([one.bias for one in made]), "loss": np.array([one.utility for one in made])}


def fasp_sets(model: SimulatedModel, scores: dict[str, np.ndarray]) -> list[Mask]:
    """FASP's set for each share of heads."""
    n_units = model.space.n_units
    singles = {name: values[:-1] for name, values in scores.items()}
    return [model.space.mask(PruningRule("fasp", alpha=share).choose(singles, n_units)) for share in ALPHAS]


def fasp(model: SimulatedModel, states: int, seed: int) -> tuple[Mask, int]:
    """Every head alone, then FASP's set for each share of heads; the best measured of those sets."""
    untouched = model.space.untouched()
    sets = [untouched, *fasp_sets(model, single_scores(model))]
    told = dict(zip(sets, model.measure(sets), strict=True))
    return cheapest(told, MAKE_COST(told[untouched])), model.space.n_units + len(sets)


def genetic(model: SimulatedModel, states: int, seed: int) -> tuple[Mask, int]:
    """NSGA-II on measurements; the cheapest of its front."""
    searcher = Genetic(
        model.space, FIGURES, lambda r: UtilityFloor.relative(FIGURES, r, FLOOR), seed=seed, states=states
    )
    told = drive(searcher, model.measure)
    return cheapest(told, MAKE_COST(told[model.space.untouched()])), len(told)


def annealing(model: SimulatedModel, states: int, seed: int) -> tuple[Mask, int]:
    """Annealing on measurements."""
    searcher = Annealing(
        model.space, MAKE_COST, seed=seed, states=states, start_temperature=0.05, end_temperature=0.005
    )
    told = drive(searcher, model.measure)
    return cheapest(told, MAKE_COST(told[model.space.untouched()])), len(told)


def attention_pruning(model: SimulatedModel, states: int, seed: int) -> tuple[Mask, int]:
    """As published, but for the cost, which is the same for all: uniform masks, two networks, annealing, its result."""
    searcher = AttentionPruning(model.space, FIGURES, MAKE_COST, seed=seed, states=states)
    told = drive(searcher, model.measure)
    return searcher.annealed[0], len(told)  # whatever it measured


def attention_pruning_chosen(model: SimulatedModel, states: int, seed: int) -> tuple[Mask, int]:
    """With sixteen finalists measured, and the choice among all masks by surrogates and measurements together."""
    searcher = AttentionPruning(model.space, FIGURES, MAKE_COST, seed=seed, states=states, finalists=16, log_loss=True)
    told = drive(searcher, model.measure)
    return searcher.finalists(1)[0], len(told)


def active(model: SimulatedModel, states: int, seed: int) -> tuple[Mask, int]:
    """Rounds of proposals, measurements and fits."""
    searcher = Active(model.space, FIGURES, MAKE_COST, seed=seed, states=states, patience=0)
    told = drive(searcher, model.measure)
    return searcher.finalists(1)[0], len(told)


def active_with_scores(model: SimulatedModel, states: int, seed: int, begin: bool = False) -> tuple[Mask, int]:
    """The same with noisy scores of single heads as a prior, which count as no masks: a repair has them for little."""
    scores = single_scores(model)
    effects = {"bias": scores["bias"] - scores["bias"][-1], "loss": np.log(scores["loss"] / scores["loss"][-1])}
    prior = {name: values[:-1] for name, values in effects.items()}
    starts = fasp_sets(model, scores) if begin else []
    searcher = Active(model.space, FIGURES, MAKE_COST, seed=seed, states=states, patience=0, prior=prior, starts=starts)
    told = drive(searcher, model.measure)
    return searcher.finalists(1)[0], len(told)


def active_from_sets(model: SimulatedModel, states: int, seed: int) -> tuple[Mask, int]:
    """And with FASP's sets by these scores to begin with."""
    return active_with_scores(model, states, seed, begin=True)


METHODS_AND_BUDGETS: dict[str, tuple[Callable[[SimulatedModel, int, int], tuple[Mask, int]], tuple[int, ...]]] = {
    "random": (random_search, (100, 200, 300, 600)),
    "FASP": (fasp, (155,)),
    "annealing, measured": (annealing, (200, 600)),
    "genetic, measured": (genetic, (100, 200, 300, 600)),
    "AP as published": (attention_pruning, (100, 200, 300, 600)),
    "AP, finalists measured": (attention_pruning_chosen, (100, 200, 300, 600)),
    "active": (active, (100, 150, 200, 300)),
    "active, scores given": (active_with_scores, (40, 100, 200)),
    "active, scores and FASP's sets given": (active_from_sets, (40, 100, 200)),
}


def best_known(model: SimulatedModel) -> float:
    """The least true cost that annealing on the truth itself finds."""
    costs = []
    for seed in range(2):
        searcher = Annealing(
            model.space,
            MAKE_COST,
            seed=seed,
            states=30_000,
            chains=20,
            start_temperature=0.05,
            end_temperature=0.0005,
        )
        drive(searcher, model.truth)
        costs.append(searcher.incumbent.cost)
    return min(costs)


def compare(data: Path, seeds: int, share: float) -> list[dict[str, Any]]:
    """Regret of every method at every budget, on one model per seed."""
    effects = published_effects(data, "gpt2")
    rows = []
    for seed in range(seeds):
        model = simulated(effects, seed)
        (untouched,) = model.truth([model.space.untouched()])
        cost = MAKE_COST(untouched)
        made = []
        for name, (method, budgets) in METHODS_AND_BUDGETS.items():
            for budget in budgets:
                states = max(40, int(share * budget))
                begun = process_time()
                mask, asked = method(model, states, seed)
                seconds = process_time() - begun
                (true,) = model.truth([mask])
                broken = true.utility > FLOOR * untouched.utility
                made.append(
                    {
                        "seed": seed,
                        "method": name,
                        "states": states if name != "FASP" else asked,
                        "cost": cost(untouched if broken else true),
                        "cost_without_floor": cost.weighted(true),
                        "broken": broken,
                        "bias": true.bias,
                        "perplexity": true.utility,
                        "size": mask.size,
                        "cpu_seconds": seconds,
                    }
                )
        best = min(best_known(model), *(row["cost"] for row in made))
        for row in made:
            row["regret"] = row["cost"] - best
            row["regret_without_floor"] = row["cost_without_floor"] - best
            row["untouched_regret"] = cost(untouched) - best
        rows += made
        print(f"seed {seed}: best known {best:.3f}, untouched {cost(untouched):.3f}", flush=True)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Mean regret with intervals, in Markdown."""
    frame = pd.DataFrame(rows)
    lines = [
        "| method | masks measured | regret (95 %) | without the floor | true bias | true perplexity (median) "
        "| floor broken | CPU s |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for (method, states), part in frame.groupby(["method", "states"], sort=False):
        mean = t_interval(part["regret"].to_numpy())
        half = mean.interval.half_width
        plain = t_interval(part["regret_without_floor"].to_numpy())
        lines.append(
            f"| {method} | {states} | **{mean.mean:.3f}** +- {half:.3f} "
            f"| {plain.mean:.3f} +- {plain.interval.half_width:.3f} | {part['bias'].mean():.3f} "
            f"| {part['perplexity'].median():.1f} | {int(part['broken'].sum())} of {len(part)} "
            f"| {part['cpu_seconds'].mean():.1f} |"
        )
    lines.append(f"\nThe untouched model's regret: {frame.groupby('seed')['untouched_regret'].first().mean():.3f}.")
    return "\n".join(lines)


def main() -> None:
    """Compare all methods on ten models."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=default_folder(), help="folder that holds fasp/head_scores.csv.gz")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--share", type=float, default=1.0, help="share of the usual numbers of masks")
    parser.add_argument("--json", type=Path, help="where to write all figures")
    options = parser.parse_args()
    facts = circumstances()
    with threadpool_limits(1):
        rows = compare(options.data, options.seeds, options.share)
    print(f"\n{table(rows)}\n\n{in_words(facts)}")
    if options.json:
        options.json.write_text(json.dumps({"circumstances": facts, "rows": rows}, indent=2, default=float) + "\n")


if __name__ == "__main__":
    main()
