"""A run as a process of its own, to be killed: starts or resumes the run in a directory, and prints how it ended.

Usage: kill_target.py DIRECTORY STATES
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from toy_runs import SPACE, ToyEvaluator, ToySearcher

from fairmend.errors import RunError
from fairmend.runs.runner import Runner
from fairmend.runs.store import Store


def main(directory: Path, states: int) -> None:
    path = directory / "run.sqlite"
    try:
        store = Store.open(path)
    except RunError:
        store = Store.create(path, {"kind": "toy"})  # never takes the place of a run that began
    with store:
        evaluator = ToyEvaluator(SPACE, seconds=0.004, journal=directory / "journal.txt")
        searcher = ToySearcher(SPACE, seed=11, states=states)
        summary = Runner(evaluator, store.context("search", evaluator)).run(searcher)
        answer = {"best": searcher.best.bits, "cost": searcher.best_cost, "told": searcher.told}
        (directory / "answer.json").write_text(json.dumps(answer))
        print(summary.stopped, summary.asked, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
