"""The house rules that a reader would otherwise have to check by hand: imports, citation, dependencies, loading."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from importlinter.cli import lint_imports
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import fairmend

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = [entry for entries in PROJECT["optional-dependencies"].values() for entry in entries]
REQUIREMENTS = [Requirement(entry) for entry in [*PROJECT["dependencies"], *EXTRAS]]

_DISTRIBUTIONS = {
    "sklearn": "scikit-learn",
    "lazy_loader": "lazy-loader",
    "profanity_check": "alt-profanity-check",
    "google": "onnx",  # protobuf, which onnx brings and whose errors it raises
    "huggingface_hub": "transformers",  # likewise
    "packaging": "matplotlib",  # likewise
    "mlflow": "mlflow-skinny",
}


def called(node: ast.Call) -> str:
    return ast.unparse(node.func)


def test_imports_point_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)

    assert lint_imports(config_filename="pyproject.toml", no_cache=True) == 0


def test_every_third_party_import_is_a_declared_dependency() -> None:
    declared = {requirement.name.lower() for requirement in REQUIREMENTS}
    imported = set()
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                imported.add(node.module.partition(".")[0])
    foreign = imported - set(sys.stdlib_module_names) - {"fairmend"}

    assert {_DISTRIBUTIONS.get(name, name) for name in foreign} <= declared


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: str(source.relative_to(ROOT / "src")))
def test_no_source_runs_what_a_file_says(source: Path) -> None:
    tree = ast.parse(source.read_text())
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    flags = {(word.arg, ast.unparse(word.value)) for call in calls for word in call.keywords}

    between_processes = {"pickle"} if source.parts[-3:] == ("runs", "workers", "service.py") else set()
    assert not modules & ({"pickle", "joblib", "dill", "marshal", "shelve"} - between_processes)
    assert not {called(call) for call in calls} & {"eval", "exec", "os.system", "yaml.load"}
    assert not flags & {("shell", "True"), ("allow_pickle", "True"), ("weights_only", "False")}


def test_the_citation_file_is_valid_and_names_the_papers() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())

    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors", "version", "license"} <= citation.keys()
    assert citation["version"] == fairmend.__version__
    for reference in citation["references"]:
        assert {"type", "title", "authors", "year"} <= reference.keys()
        assert all({"family-names", "given-names"} <= author.keys() for author in reference["authors"])
    titles = " ".join(reference["title"] for reference in citation["references"])
    assert all(word in titles for word in ("NeuFair", "Fairness-Aware Structured Pruning", "Attention Pruning"))


def test_the_changelog_knows_the_version() -> None:
    assert f"## [{fairmend.__version__}]" in (ROOT / "CHANGELOG.md").read_text()
    assert fairmend.__version__ == PROJECT["version"]


def test_every_dependency_says_why_it_is_there() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    core = text.partition("dependencies = [")[2].partition("]")[0].strip().splitlines()

    assert core
    assert [line for line in core if "#" not in line] == []


def test_the_pins_name_one_version_of_every_dependency_and_no_place_to_get_it_from() -> None:
    lines = [line.partition("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines()]
    pins = [Requirement(line) for line in lines if line]  # neither options such as --index-url nor paths parse
    exact = {canonicalize_name(pin.name): pin for pin in pins}
    loose = [str(pin) for pin in pins if pin.url or pin.extras or not re.fullmatch(r"==[\w.]+", str(pin.specifier))]

    assert loose == []
    assert len(exact) == len(pins)
    for requirement in REQUIREMENTS:
        if requirement.name not in {"torch", "lm-eval"}:  # the Makefile's TORCH, and only for `make harness`
            pin = exact[canonicalize_name(requirement.name)]
            assert pin.marker is None
            assert requirement.specifier.contains(str(pin.specifier).removeprefix("==")), requirement


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("goal", ["demo", "test"])
def test_what_make_installs_is_pinned(goal: str, tmp_path: Path) -> None:
    fresh = [f"VENV={tmp_path / 'venv'}", "PYTHON=python3", "TORCH=torch==2.13.0"]
    # Without what an outer make was told, such as the PINS of `make latest`.
    variables = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "-n", goal, *fresh]
    said = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=True).stdout
    torch, *others = [line.split(" install ")[1] for line in said.splitlines() if " pip install " in line]

    assert torch.endswith(" torch==2.13.0")
    assert any("--editable" in arguments for arguments in others)
    # Without isolation, since the environments that pip builds in would take the newest hatchling.
    assert [arguments for arguments in others if "--constraint constraints.txt" not in arguments] == []
    assert [
        arguments for arguments in others if "--editable" in arguments and "--no-build-isolation" not in arguments
    ] == []
    assert others[0].endswith(" hatchling")
