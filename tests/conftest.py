"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of published networks and data that parity tests read; it is not part of the repository."""
    named = os.environ.get("FAIRMEND_DATA")
    folder = Path(named) if named else Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"parity data not found at {folder}: set FAIRMEND_DATA to the folder that holds it")
    return folder
