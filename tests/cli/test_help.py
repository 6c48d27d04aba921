"""Help: quick, complete and true."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import typer

import fairmend
from fairmend.cli.language import options as language
from fairmend.cli.main import app
from fairmend.cli.options import CommonOptions
from fairmend.cli.tabular import options as tabular
from fairmend.language.repair.settings import RepairSettings as LanguageSettings
from fairmend.settings import settings_of
from fairmend.tabular.data.presets import PRESETS
from fairmend.tabular.fairness.metrics import LOG_LOSS, OBJECTIVES, UTILITIES
from fairmend.tabular.names import OBJECTIVE_NAMES, PRESET_NAMES, UTILITY_NAMES
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
    *(CommonOptions, tabular.SourceOptions, tabular.StudyOptions, RepairSettings),
    *(language.ModelOptions, language.MeasureOptions, language.ComparisonOptions, LanguageSettings),
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
def test_every_setting_says_what_it_is_for(group):
    for name, known in settings_of(group).items():
        assert len(known.help) > 10, name
    if group in (RepairSettings, LanguageSettings):
        assert all(f"        {name}: " in group.__doc__ for name in settings_of(group))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_shows_what_most_need_and_says_where_the_rest_is(run, words):
    few, whole = run(*words, "--help").out, run(*words, "--help-all").out
    shown, options = (set(re.findall(r"^│ [* ]* *(--[a-z-]+)", text, re.MULTILINE)) for text in (few, whole))
    assert shown <= options
    assert len(shown) <= 19
    rest = len(options) - len(shown)
    assert (f"{rest} more options: fairmend {' '.join(words)} --help-all" in few) == (rest > 0)
    assert "more options" not in whole


def test_every_option_of_every_command_has_a_help_text():
    waiting, unsaid, n_options = [("fairmend", typer.main.get_command(app))], [], 0
    while waiting:
        name, command = waiting.pop()
        waiting += [(f"{name} {word}", inner) for word, inner in getattr(command, "commands", {}).items()]
        options = [each for each in command.params if each.param_type_name == "option"]
        n_options += len(options)
        unsaid += [f"{name} {each.opts[0]}" for each in options if not each.help]
    assert unsaid == []
    assert n_options > 300


def test_the_commonest_options_are_in_the_short_help(run):
    for words, options in (
        ("tabular repair", ("--preset", "--model", "--data", "--label", "--sensitive", "--seconds", "--keep", "--out")),
        ("lm repair", ("--axis", "--prompts", "--scorer", "--method", "--alpha", "--max-perplexity", "--out")),
    ):
        shown = run(*words.split(), "--help").out
        assert [option for option in options if f"{option} " not in shown] == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("tabular", "repair"), ("--states", "N|auto|none", f"auto: {DEFAULT_STATES}", "--seconds", "S|none")),
        (
            ("lm", "repair"),
            (
                "--max-perplexity",
                "RATIO|none",
                "--prompt-count",
                "N|all",
                "1.2, or 1.05 with --bias; none with --protocol fasp",
            ),
        ),
    ],
)
def test_help_says_how_to_say_no_limit(run, words, said):
    text = " ".join(run(*words, "--help-all").out.replace("│", " ").split())
    assert [each for each in said if each not in text] == []


def test_the_names_in_the_help_are_all_names():
    assert list(PRESET_NAMES) == list(PRESETS)
    assert list(OBJECTIVE_NAMES) == list(OBJECTIVES)
    assert list(UTILITY_NAMES) == [*UTILITIES, LOG_LOSS]


def test_the_public_names_exist_and_are_imported_on_first_use():
    for name in fairmend.__all__:
        assert getattr(fairmend, name) is not None
    assert set(fairmend.__all__) <= set(dir(fairmend))
    with pytest.raises(AttributeError, match="Maks"):
        fairmend.Maks  # noqa: B018
