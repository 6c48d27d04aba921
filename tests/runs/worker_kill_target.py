"""A run with two workers as a process of its own, to be killed.

Usage: worker_kill_target.py DIRECTORY processes|ray ADDRESS
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from test_workers import search
from worker_cases import FileEvaluator

from fairmend.runs.workers.crew import Crew
from fairmend.runs.workers.processes import LocalProcesses


def main(directory: Path, kind: str, address: str) -> None:
    if kind == "ray":
        from fairmend.runs.workers.ray_actors import RayActors

        hiring = RayActors(address, most=2)
    else:
        hiring = LocalProcesses(2)
    with Crew(hiring) as crew:
        search(directory / "run.sqlite", FileEvaluator(directory / "evaluator.json"), crew)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
