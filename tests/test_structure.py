"""The shape of the source: small folders, no circles, few long signatures, and a table of it that is true."""

import ast
import os
import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import grimp
import pytest

from fairmend.language.toxicity import scorer
from fairmend.masks import Site, Space
from fairmend.search import sampling
from fairmend.tabular.data import layouts, presets

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "fairmend"
SOURCES = sorted(PACKAGE.rglob("*.py"))
FOLDERS = sorted({source.parent for source in SOURCES})

MOST_FILES = 15  # in one folder
MOST_PARAMETERS = 7
MOST_EXCEPTIONS = 15  # functions with more parameters than that
LONGEST_COMPOSITION = 60  # lines of repair_model
LONGEST_EXAMPLE = 10  # lines of code


def functions(source: Path) -> Iterator[ast.FunctionDef]:
    return (node for node in ast.walk(ast.parse(source.read_text())) if isinstance(node, ast.FunctionDef))


def parameters(function: ast.FunctionDef) -> list[str]:
    given = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return [parameter.arg for parameter in given if parameter.arg not in {"self", "cls"}]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(PACKAGE.parent)))
def test_a_folder_is_small_enough_to_look_through(folder: Path) -> None:
    assert len(list(folder.glob("*.py"))) <= MOST_FILES


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = grimp.build_graph("fairmend", cache_dir=None)

    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}

    assert [*TopologicalSorter(imports).static_order()]  # a circle raises


def test_few_functions_take_many_parameters() -> None:
    counts = Counter(
        {
            f"{source.relative_to(PACKAGE)}:{made.name}": len(parameters(made))
            for source in SOURCES
            for made in functions(source)
        }
    )

    long = {name: count for name, count in counts.items() if count > MOST_PARAMETERS}

    assert len(long) <= MOST_EXCEPTIONS, sorted(long)


def test_repairing_a_model_reads_on_one_page() -> None:
    (repair,) = (
        made for made in functions(PACKAGE / "language" / "repair" / "repair.py") if made.name == "repair_model"
    )

    assert repair.end_lineno is not None
    assert repair.end_lineno - repair.lineno < LONGEST_COMPOSITION


def test_contributing_names_every_module_and_folder_and_no_other_folder() -> None:
    table = (ROOT / "CONTRIBUTING.md").read_text().partition("**Where things are.**")[2].partition("**A new")[0]
    named = set(re.findall(r"^\| `(?:src/fairmend/)?([\w/]+)/`", table, re.MULTILINE))

    beside = set(re.findall(r"`(\w+)`", table.partition("Beside the folders:")[2]))

    assert named == {str(folder.relative_to(PACKAGE)) for folder in FOLDERS} - {"."}
    assert {module.stem for module in PACKAGE.glob("[a-z]*.py")} <= beside


def test_the_commonest_changes_are_shown_in_a_few_lines_that_work() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    searcher, toxicity, data = re.findall(r"^```(?:python|toml)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}

    exec(f"from __future__ import annotations\n{searcher}", vars(sampling) | {}, names)
    exec(f"from __future__ import annotations\n{toxicity}", vars(scorer) | {}, names)
    made = names["OneByOne"](Space((Site("hidden", 3),)))
    entries = tomllib.loads(data)
    table = layouts.RawTable("law", **layouts.tuples(entries["tables"]["law"]))
    preset = presets.Preset("law-sex", **entries["presets"]["law-sex"], **layouts.tuples(entries["published"]["law"]))

    for example in (searcher, toxicity, data):
        assert len([line for line in example.splitlines() if line]) <= LONGEST_EXAMPLE
    assert [mask.size for mask in (*made.ask(), *made._masks())] == [0, 1, 1, 1]
    assert isinstance(names["Shouting"](), scorer.Scorer)
    assert [*names["Shouting"]().score(["NO", "yes"])] == [1.0, 0.0]
    assert set(entries["presets"]["law-sex"]) == set(layouts.CATALOGUE["presets"]["adult-sex"])
    assert (table.title, preset.hidden) == ("Law school admissions", (16,))


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="one process holds every group")
@pytest.mark.xdist_group("structure")
def test_tests_of_a_group_go_to_one_process(request: pytest.FixtureRequest) -> None:
    """pytest 9.2 with pytest-xdist 3.8 deals them out one by one, without a word, and loads every model twice."""
    assert request.node.nodeid.endswith("@structure")
