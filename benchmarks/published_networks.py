"""The published networks and their data, as the benchmarks read them: not part of the repository, see README.md."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairmend import __version__
from fairmend.tabular.data.datasets import Dataset
from fairmend.tabular.networks.networks import Network
from fairmend.tabular.studies.reproduce import find_networks

HERE = Path(__file__).resolve().parent
SETTINGS = ("adult-sex", "adult-race", "compas-sex", "compas-race", "default-sex", "bank-age")


def default_folder() -> Path:
    """Where the networks and data are looked for: $FAIRMEND_DATA, or beside the checkout."""
    return Path(os.environ.get("FAIRMEND_DATA") or HERE.parents[1] / "shared" / "data")


@dataclass(frozen=True)
class PublishedNetwork:
    """A trained network with the data set and the splits it was trained on."""

    setting: str
    seed: int
    network: Network
    dataset: Dataset


def published(folder: Path, setting: str, count: int | None = None) -> list[PublishedNetwork]:
    """The first `count` published networks of a setting such as "adult-sex", by ascending seed."""
    found, missing = find_networks(folder / "neufair", folder, [setting])
    if missing:
        raise SystemExit(f"{setting}: {missing[setting]}")
    chosen = sorted(found, key=lambda network: network.seed)[:count]
    return [PublishedNetwork(setting, each.seed, *each.load()) for each in chosen]


def circumstances() -> dict[str, Any]:
    """What a figure depends on besides the code: commit, versions, processor."""
    import numba
    import numpy
    import sklearn
    import torch

    git = ["git", "-C", str(HERE), "describe", "--always", "--dirty", "--abbrev=9"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    return {
        "fairmend": __version__,
        "commit": commit or "unknown",
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "numba": numba.__version__,
        "scikit-learn": sklearn.__version__,
        "torch": torch.__version__,
        "processor": _processor(),
        "cpus": os.cpu_count(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def in_words(facts: dict[str, Any]) -> str:
    """The circumstances as one line under a table."""
    return (
        f"fairmend {facts['fairmend']} ({facts['commit']}), Python {facts['python']}, NumPy {facts['numpy']}, numba "
        f"{facts['numba']}, torch {facts['torch']}; {facts['processor']}, {facts['cpus']} CPUs"
    )
