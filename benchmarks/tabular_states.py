"""How many states per CPU second the search measures, against a naive evaluator in the same run.

    OMP_NUM_THREADS=1 python benchmarks/tabular_states.py --data ../shared/data --json states.json

Ours is the whole search: the evaluator and the store are made, annealing asks, the evaluator measures, SQLite keeps,
annealing is told. Naive is the measurement alone, without any search around it: edit the weights, run the whole
network, ask scikit-learn for F1 and accuracy, restore the weights. It measures an even sample of states that such a
search measured, and its figures are compared with ours. Both run on one thread, in turns, and are timed in CPU
seconds, because other programs on the machine then disturb the ratio least. Compiling the kernels is not counted: it
happens once per installation. The naive evaluator runs before and after each of our searches, and the ratio is taken
within such a turn.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from published_networks import PublishedNetwork, circumstances, default_folder, in_words, published
from sklearn.metrics import accuracy_score, f1_score
from threadpoolctl import threadpool_limits

from fairmend.evaluation import Measurement
from fairmend.masks import Mask
from fairmend.runs.budgets import Budget
from fairmend.runs.runner import Runner, RunSummary
from fairmend.runs.store import Store
from fairmend.search import Searcher, make_searcher
from fairmend.tabular.data.presets import find_preset
from fairmend.tabular.repair.repair import evaluator_for
from fairmend.tabular.repair.settings import RepairSettings

BARS = {"adult-sex": 12, "default-sex": 60, "compas-sex": 120, "bank-age": 60}
"""The ratios that the project set itself."""

STATES = {"adult-sex": 3_000, "default-sex": 20_000, "compas-sex": 40_000, "bank-age": 20_000}


class NaiveEvaluator:
    """Measures a state the way one would write it down first: in the network's weights, with library calls only."""

    def __init__(self, subject: PublishedNetwork) -> None:
        modules: list[torch.nn.Module] = []
        for layer in subject.network.layers:
            linear = torch.nn.Linear(layer.n_in, layer.n_out)
            linear.load_state_dict({"weight": torch.tensor(layer.weight), "bias": torch.tensor(layer.bias)})
            modules += [linear, torch.nn.ReLU()]
        self.module = torch.nn.Sequential(*modules[:-1]).eval()
        self.hidden = [module for module in self.module if isinstance(module, torch.nn.Linear)][:-1]
        X, self.y, self.groups = subject.dataset.subset("validation")
        self.X = torch.from_numpy(X)
        self.widths = subject.network.hidden_widths

    @torch.no_grad()
    def measure(self, dropped: np.ndarray) -> tuple[float, float, float]:
        """EOD, F1 and accuracy with the neurons of a boolean array of shape (n_units,) switched off."""
        before = {name: tensor.clone() for name, tensor in self.module.state_dict().items()}
        start = 0
        for layer, width in zip(self.hidden, self.widths, strict=True):
            off = torch.from_numpy(dropped[start : start + width])
            layer.weight[off] = 0.0
            layer.bias[off] = 0.0
            start += width
        predicted = (self.module(self.X).squeeze(1) > 0).numpy().astype(np.int64)
        self.module.load_state_dict(before)
        rates = [[predicted[(self.groups == group) & (self.y == label)].mean() for group in (0, 1)] for label in (0, 1)]
        eod = max(abs(first - second) for first, second in rates)
        return eod, f1_score(self.y, predicted), accuracy_score(self.y, predicted)


class TimedSearcher:
    """Passes on to a searcher and adds up the seconds that it takes."""

    def __init__(self, searcher: Searcher) -> None:
        self._searcher = searcher
        self.space = searcher.space
        self.seconds = 0.0

    def settings(self) -> dict[str, Any]:
        """The searcher's own."""
        return self._searcher.settings()

    def ask(self) -> list[Mask]:
        """Ask, timed."""
        begun = time.perf_counter()
        masks = self._searcher.ask()
        self.seconds += time.perf_counter() - begun
        return masks

    def tell(self, masks: Sequence[Mask], measurements: Sequence[Measurement]) -> None:
        """Tell, timed."""
        begun = time.perf_counter()
        self._searcher.tell(masks, measurements)
        self.seconds += time.perf_counter() - begun


class Search(NamedTuple):
    """One whole search of ours."""

    cpu_seconds: float
    summary: RunSummary
    searcher_seconds: float
    measured: list[tuple[Mask, Measurement]]


def search(subject: PublishedNetwork, states: int, seed: int, threshold: str, timed: bool = False) -> Search:
    """Anneal on the validation split with the published size limits, into a fresh SQLite store."""
    preset = find_preset(subject.setting)
    settings = RepairSettings(
        states=states,
        seed=seed,
        min_drop=preset.min_drop,
        max_drop=preset.max_drop,
        search_on="validation",
        threshold=threshold,
    )
    with tempfile.TemporaryDirectory() as folder:
        begun = time.process_time()
        space = settings.space(subject.network)
        evaluator = evaluator_for(subject.network, subject.dataset, settings, space)
        searcher = make_searcher(
            settings.search,
            space,
            make_cost=lambda reference: settings.cost(evaluator.figures, reference),
            figures=evaluator.figures,
            seed=seed,
            states=states,
        )
        asked = TimedSearcher(searcher) if timed else searcher
        with Store.create(Path(folder) / "run.sqlite", {"kind": "benchmark"}) as store:
            kept = store.context("search", evaluator)
            summary = Runner(evaluator, kept).run(asked, Budget(evaluations=states))
            store.flush()
            seconds = time.process_time() - begun
            measured = list(kept)
    return Search(seconds, summary, asked.seconds if timed else 0.0, measured)


def naive_seconds(evaluator: NaiveEvaluator, masks: Sequence[np.ndarray]) -> float:
    """CPU seconds that the naive evaluator takes for the masks."""
    begun = time.process_time()
    for mask in masks:
        evaluator.measure(mask)
    return time.process_time() - begun


def race(
    subjects: Sequence[PublishedNetwork], states: int, naive_states: int, repetitions: int, threshold: str
) -> dict[str, Any]:
    """Both evaluators in turns on all networks of one setting."""
    setting = subjects[0].setting
    ours, naive, ratios = [], [], []
    compared = different = 0
    for subject in subjects:
        measured = search(subject, states, repetitions, threshold).measured  # compiles, and gives the states to compare
        unshifted = [(mask, figures) for mask, figures in measured if not any(mask.dials)]
        sample = [unshifted[i] for i in np.linspace(0, len(unshifted) - 1, naive_states).astype(int)]
        masks = [mask.dropped() for mask, _ in sample]
        evaluator = NaiveEvaluator(subject)
        results = [evaluator.measure(mask) for mask in masks]
        compared += len(sample)
        different += sum(
            abs(eod - figures.bias) > 1e-9 or abs(f1 - figures.utility) > 1e-9
            for (eod, f1, _), (_, figures) in zip(results, sample, strict=True)
        )
        for repetition in range(repetitions):
            seconds = naive_seconds(evaluator, masks)
            found = search(subject, states, repetition, threshold)
            seconds += naive_seconds(evaluator, masks)
            naive.append(2 * len(masks) / seconds)
            # States that the search was told, looked-up ones too: the naive evaluator would measure each of them.
            ours.append(found.summary.asked / found.cpu_seconds)
            ratios.append(ours[-1] / naive[-1])
    timed = search(subjects[0], states, 0, threshold, timed=True)
    summary = timed.summary
    shares = {
        "evaluator": summary.evaluator_seconds / summary.seconds,
        "store": summary.store_seconds / summary.seconds,
        "searcher": timed.searcher_seconds / summary.seconds,
    }
    shares["loop"] = 1 - sum(shares.values())
    return {
        "setting": setting,
        "threshold": threshold,
        "networks": len(subjects),
        "repetitions": repetitions,
        "states_per_run": states,
        "naive_states_per_second": float(np.median(naive)),
        "ours_states_per_second": float(np.median(ours)),
        "ratio": float(np.median(ratios)),
        "ratios": [round(ratio, 1) for ratio in ratios],
        "bar": BARS[setting],
        "states_compared": compared,
        "states_that_differ": different,
        "microseconds_per_state": 1e6 / float(np.median(ours)),
        "shares": shares,
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The results in Markdown."""
    lines = [
        "| data | threshold | naive, states/s | ours, states/s | ratio (range) | bar "
        "| CPU us/state | evaluator | store | searcher | loop | figures that differ |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        shares = " | ".join(f"{share:.0%}" for share in row["shares"].values())
        lines.append(
            f"| {row['setting']} | {row['threshold']} | {row['naive_states_per_second']:.1f} "
            f"| {row['ours_states_per_second']:,.0f} "
            f"| **{row['ratio']:.1f}** ({min(row['ratios']):.1f} to {max(row['ratios']):.1f}) | {row['bar']} "
            f"| {row['microseconds_per_state']:.1f} | {shares} "
            f"| {row['states_that_differ']} of {row['states_compared']} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Race on all four data sets."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=default_folder(), help="folder of the published networks and data")
    parser.add_argument("--settings", nargs="+", choices=BARS, default=list(BARS))
    parser.add_argument("--networks", type=int, default=2, help="networks per data set")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--naive-states", type=int, default=60, help="states of a naive turn")
    parser.add_argument("--share", type=float, default=1.0, help="share of the usual number of states")
    parser.add_argument("--threshold", nargs="+", choices=("fixed", "joint"), default=["fixed"])
    parser.add_argument("--json", type=Path, help="where to write all figures")
    options = parser.parse_args()
    facts = circumstances()
    torch.set_num_threads(1)
    rows = []
    with threadpool_limits(1):
        for setting in options.settings:
            subjects = published(options.data, setting, options.networks)
            for threshold in options.threshold:
                states = max(100, int(options.share * STATES[setting]))
                row = race(subjects, states, options.naive_states, options.repetitions, threshold)
                print(f"{setting} {threshold}: {row['ratio']:.1f} times, bar {row['bar']}", flush=True)
                rows.append(row)
    print(f"\n{table(rows)}\n\n{in_words(facts)}")
    if options.json:
        options.json.write_text(json.dumps({"circumstances": facts, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
