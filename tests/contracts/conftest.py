"""Makes the landscapes beside the tests and the tiny models of the language tests importable."""

import sys
from pathlib import Path

for _folder in (Path(__file__).parent, Path(__file__).parents[1] / "language"):
    sys.path.insert(0, str(_folder))
