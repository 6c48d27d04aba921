"""Help: quick, complete and true."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from typing import get_type_hints

import pytest

import fairmend
from fairmend.cli import options
from fairmend.cli.language.comparison_options import ComparisonOptions
from fairmend.cli.language.options import (
    MeasureOptions,
    ModelOptions,
    RepairOptions,
    ScoringOptions,
)
from fairmend.cli.language.subset_options import SubsetOptions
from fairmend.cli.options import CommonOptions, SearchOptions, SourceOptions
from fairmend.tabular.data.presets import PRESETS
from fairmend.tabular.fairness.metrics import OBJECTIVES
from fairmend.tabular.repair.settings import DEFAULT_STATES, RepairSettings

HEAVY = ("numpy", "scipy", "pandas", "sklearn", "torch", "numba", "onnx", "matplotlib", "safetensors", "pyarrow")

COMMANDS = (
    ("fetch",),
    ("resume",),
    ("show",),
    ("doctor",),
    ("tabular", "audit"),
    ("tabular", "repair"),
    ("tabular", "compare"),
    ("tabular", "reproduce"),
    ("tabular", "sweep"),
    ("lm", "audit"),
    ("lm", "score"),
    ("lm", "repair"),
    ("lm", "compare"),
    ("lm", "collect"),
    ("lm", "fit"),
    ("lm", "apply"),
    ("lm", "diff"),
)
GROUPS = (
    *(SourceOptions, SearchOptions, CommonOptions),
    *(ModelOptions, MeasureOptions, ScoringOptions, RepairOptions, ComparisonOptions, SubsetOptions),
)


@pytest.mark.parametrize(
    "words", [("--help",), ("--version",), ("tabular", "repair", "--help"), ("lm", "repair", "--help")]
)
def test_help_imports_nothing_heavy(words):
    script = (
        "import atexit, sys\n"
        "def report():\n"
        "    loaded = sorted(set(sys.modules) & set(sys.argv[1].split()))\n"
        "    print('HEAVY', loaded, file=sys.stderr)\n"
        "atexit.register(report)\n"
        "from fairmend.cli.main import app\n"
        "app(sys.argv[2:], prog_name='fairmend')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, " ".join(HEAVY), *words], capture_output=True, text=True, check=True
    )
    assert "HEAVY []" in done.stderr


def test_the_version_is_the_packages(run):
    assert run("--version").out.strip() == f"fairmend {fairmend.__version__}"


def test_without_a_command_the_help_is_shown(run):
    outcome = run()
    assert "tabular" in outcome.out + outcome.err
    assert "audit" in run("tabular").out + run("tabular").err


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_explains_itself_with_an_example(run, words):
    outcome = run(*words, "--help")
    assert outcome.code == 0
    text = " ".join(outcome.out.split())
    assert f"Example: fairmend {' '.join(words)}" in text
    for option in ("--seed", "--threads", "--json", "--quiet"):
        assert option in text


@pytest.mark.parametrize("group", GROUPS)
def test_every_option_has_a_help_text(group):
    for name, hint in get_type_hints(group, include_extras=True).items():
        (option,) = hint.__metadata__
        assert len(option.help) > 20, name


def test_the_defaults_are_those_of_the_library():
    library = RepairSettings()
    for field in fields(SearchOptions):
        if field.name != "min_drop":  # None on the command line, so that a preset's limit can take its place
            assert field.default == getattr(library, field.name), field.name
    assert str(DEFAULT_STATES) in get_type_hints(SearchOptions, include_extras=True)["states"].__metadata__[0].help


def test_the_names_in_the_help_are_all_names():
    assert options.PRESET_NAMES.split(", ") == list(PRESETS)
    assert options.OBJECTIVE_NAMES.split(", ") == list(OBJECTIVES)


def test_the_public_names_exist_and_are_imported_on_first_use():
    for name in fairmend.__all__:
        assert getattr(fairmend, name) is not None
    assert set(fairmend.__all__) <= set(dir(fairmend))
    with pytest.raises(AttributeError, match=r"attribute '?Maks"):
        fairmend.Maks  # noqa: B018
