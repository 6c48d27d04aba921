"""Active search on tabular networks, where measuring is cheap: is a surrogate worth its time there?

    OMP_NUM_THREADS=1 python benchmarks/tabular_active.py --data ../shared/data

The same cost (bias, penalised below the utility floor) on the validation split of published networks: simulated
annealing with as few measured masks as active search and with as many as the defaults take, and active search with
additive and with pairwise surrogates. Costs are those of the best mask found, relative to the untouched network's; CPU
seconds on one thread are of the whole search.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from published_networks import circumstances, default_folder, in_words, published

from fairmend.costs import Cost
from fairmend.evaluation import Measurement
from fairmend.search import make_searcher
from fairmend.surrogates import Active
from fairmend.tabular.data.presets import find_preset
from fairmend.tabular.repair.repair import evaluator_for
from fairmend.tabular.repair.settings import DEFAULT_STATES, RepairSettings

SETTINGS = ("compas-sex", "bank-age", "default-sex")
FEW = 300


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=default_folder(), help="folder with the networks and the data")
    parser.add_argument("--networks", type=int, default=2, help="networks per setting")
    parser.add_argument("--settings", nargs="*", default=SETTINGS, help="which settings")
    given = parser.parse_args(arguments)
    ways = [("annealing", FEW), ("annealing", DEFAULT_STATES), ("additive", FEW), ("pairwise", FEW)]
    titles = [f"{name if name == 'annealing' else f'active, {name}'}, {states:,} masks" for name, states in ways]
    print(f"| network | {' | '.join(titles)} |\n|---|{'---:|' * len(ways)}")
    for setting in given.settings:
        for subject in published(given.data, setting, given.networks):
            preset = find_preset(setting)
            settings = RepairSettings(
                seed=0, min_drop=preset.min_drop, max_drop=preset.max_drop, search_on="validation", threshold="fixed"
            )
            space = settings.space(subject.network)
            evaluator = evaluator_for(subject.network, subject.dataset, settings, space)

            def cost_of(reference: Measurement) -> Cost:
                return settings.cost(evaluator.figures, reference)  # noqa: B023 - used within this turn only

            (untouched,) = evaluator.measure([space.untouched()])
            before = cost_of(untouched)(untouched)
            cells = []
            for name, states in ways:
                start = time.process_time()
                if name == "annealing":
                    searcher = make_searcher(
                        name, space, make_cost=cost_of, figures=evaluator.figures, seed=0, states=states
                    )
                else:
                    searcher = Active(
                        space, evaluator.figures, cost_of, seed=0, states=states, patience=0, surrogate=name
                    )
                while masks := searcher.ask():
                    searcher.tell(masks, evaluator.measure(list(masks)))
                cells.append(f"{searcher.incumbent.cost / before:.2f}, {time.process_time() - start:.1f} s")
            print(f"| {setting} {subject.seed} | {' | '.join(cells)} |", flush=True)
    print(f"\n{in_words(circumstances())}")


if __name__ == "__main__":
    main()
