"""Makes the known landscapes and the simulated model of the benchmarks importable."""

import sys
from pathlib import Path

for _folder in (Path(__file__).parent, Path(__file__).parents[2] / "benchmarks"):
    sys.path.insert(0, str(_folder))
