"""What the documents say is so: their code runs, their commands and options exist, their links lead somewhere."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import typer
import yaml
from typer.testing import CliRunner

from fairmend.cli.main import app
from fairmend.errors import ArtifactError

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *ROOT.glob("benchmarks/*.md")])
PAGES = sorted([*DOCS.glob("tutorials/*.md"), *DOCS.glob("how-to/*.md")])

# Pages that load a language model.
SLOW = {"choices.md", "toxicity.md", "own-items.md", "deploy.md", "ci.md"}

# Blocks that are shown and not run here, by page and first line.
ELSEWHERE = "run by tests/language/choices/test_lm_eval.py (make harness), on a small model"
SERVER = "vLLM needs a GPU; what it serves is the checkpoint that the block before loads with transformers"
PLANTED = "planted-smollm2 --axis gender_and_sex --scorer lexical --prompt-count 112 --new-tokens 12 --text-tokens 1024"
NOT_RUN = {
    ("lm-eval.md", "import json"): ELSEWHERE,
    ("lm-eval.md", "import lm_eval"): ELSEWHERE,
    ("lm-eval.md", "$ fairmend lm repair smollm2 --bias pronouns --method soft --out repaired"): ELSEWHERE,
    ("scale.md", "$ fairmend lm collect smollm2 --bias pronouns --subsets 300 --workers 2 --out collected"): (
        "hours of measuring; tests/cli/test_workers.py has the options on small models"
    ),
    ("toxicity.md", f"$ fairmend lm audit {PLANTED}"): "minutes; `make demo-toxicity` runs it, which .ci/run does",
    ("other-libraries.md", "import keras"): (
        "Keras takes half a minute to import; KERAS_WEIGHTS stands in for its weights, in its layout"
    ),
    ("deploy.md", "$ vllm serve repaired"): SERVER,
    (
        "deploy.md",
        "$ fairmend lm repair smollm2 --bias pronouns --method fasp --alpha 0.03 --save adapter --out few",
    ): SERVER,
    (
        "deploy.md",
        "$ fairmend lm apply smollm2 repaired/mask.json --save gguf --out as-gguf",
    ): "llama.cpp is not installed",
}


# In place of the block that asks Keras: kernels of shape (inputs, outputs), as `get_weights` of its Dense layers gives.
KERAS_WEIGHTS = """
import numpy as np

weights = [np.random.default_rng(0).normal(size=shape).astype("float32") for shape in ((2, 8), (8,), (8, 1), (1,))]
"""

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?!\w+:)([^)#]+)(?:#[^)]*)?\)")


def blocks(document: Path) -> list[tuple[str, str]]:
    """The fenced blocks of a document as (language, text)."""
    return [(match[1], match[2]) for match in _BLOCK.finditer(document.read_text())]


def commands(document: Path) -> Iterator[list[str]]:
    """The arguments of every `fairmend ...` line in a document's console blocks and workflows."""
    for language, block in blocks(document):
        if language == "console":
            for line in block.replace("\\\n", " ").splitlines():
                if line.startswith("$ fairmend "):
                    yield shlex.split(line, comments=True)[2:]
        elif language == "yaml":
            for step in yaml.safe_load(block):
                yield shlex.split(step["run"].partition(" > ")[0])[1:]


def run_document(document: Path) -> int:
    """Run the Python and console blocks of a document in the current directory, in order; how many there were."""
    names: dict[str, object] = {}
    run = 0
    for language, block in blocks(document):
        first = block.strip().splitlines()[0]
        if first == "import keras":
            exec(KERAS_WEIGHTS, names)
        if (document.name, first) in NOT_RUN:
            continue
        if language == "python":
            exec(compile(block, f"{document.name}: {first}", "exec"), names)
        elif language == "console":
            run_console(block)
        run += language in {"python", "console"}
    return run


def run_console(block: str) -> None:
    """Run the commands of a block; an `echo $?` says with which exit code the one before ends, otherwise with 0."""
    lines = block.splitlines()
    for at, line in enumerate(lines):
        assert not line.startswith("$ ") or line.startswith("$ fairmend ") or line == "$ echo $?", f"not run: {line}"
        if line.startswith("$ fairmend "):
            expected = int(lines[at + 2]) if lines[at + 1 : at + 2] == ["$ echo $?"] else 0
            result = CliRunner().invoke(app, shlex.split(line)[2:])
            assert result.exit_code == expected, result.output


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=page.name, marks=[pytest.mark.slow] if page.name in SLOW else [])
        for page in PAGES
        if page.name not in {"lm-eval.md", "scale.md"}  # nothing of them runs here: see NOT_RUN
    ],
)
@pytest.mark.filterwarnings("ignore:Stochastic Optimizer.*:sklearn.exceptions.ConvergenceWarning")
def test_the_code_of_a_page_runs_in_an_empty_folder(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    try:
        assert run_document(page) > 0
    except ArtifactError as offline:
        pytest.skip(str(offline))


def test_what_is_not_run_is_still_on_its_page() -> None:
    shown = {(page.name, block.strip().splitlines()[0]) for page in PAGES for _, block in blocks(page)}

    assert NOT_RUN.keys() - shown == set()
    for page in PAGES:
        if page.name in {"lm-eval.md", "scale.md"}:
            run = [block for language, block in blocks(page) if language in {"python", "console"}]
            assert [block for block in run if (page.name, block.strip().splitlines()[0]) not in NOT_RUN] == []


@pytest.mark.slow
def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    examples = [block for language, block in blocks(ROOT / "README.md") if language == "python"]

    assert examples
    for example in examples:
        try:
            exec(compile(example, "README.md", "exec"), {})
        except ArtifactError as offline:
            pytest.skip(str(offline))


def test_the_readme_leads_from_a_table_and_a_torch_network_to_a_report_in_at_most_six_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = (block for _, block in blocks(ROOT / "README.md") if "net.pt" in block)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(400, 2)), columns=["skill", "years"])
    table["sex"] = rng.choice(["F", "M"], 400)
    table["hired"] = (table["skill"] > 0).astype(int)
    table.to_csv("people.csv", index=False)
    module = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    torch.save(module.state_dict(), "net.pt")

    install, convert, *rest = [line.removeprefix("$ ") for line in block.splitlines()]
    _, *arguments = shlex.split(convert)
    subprocess.run([sys.executable, *arguments], check=True)
    run_console("\n".join(f"$ {line}" for line in rest))

    assert install == "pip install ."
    assert len(rest) + 2 <= 6
    files = {each.name for each in Path("repaired").iterdir()}
    assert {"README.md", "report.html", "result.json", "network.onnx"} <= files


@pytest.mark.parametrize(
    ("goal", "document"), [("demo", ROOT / "README.md"), ("demo-toxicity", DOCS / "tutorials" / "toxicity.md")]
)
def test_the_demos_run_the_commands_that_are_shown(goal: str, document: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    recipe = re.search(rf"^{goal}:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert recipe is not None
    variables = dict(re.findall(r"^(\w+) := (.*)$", makefile, re.MULTILINE))
    lines = [line.split("/fairmend ")[1] for line in recipe[1].splitlines() if "/fairmend " in line]
    run = [re.sub(r"\$\((\w+)\)", lambda name: variables[name[1]], line).split() for line in lines]

    shown = list(commands(document))

    assert run
    assert [arguments for arguments in run if arguments not in shown] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.relative_to(ROOT)))
def test_documented_commands_have_the_options_that_they_are_shown_with(document: Path) -> None:
    for arguments in commands(document):
        command: Any = typer.main.get_command(app)
        rest = arguments
        while hasattr(command, "commands"):  # whichever click typer brings
            name, *rest = rest
            assert name in command.commands, f"{document.name}: no command {name!r} in {shlex.join(arguments)}"
            command = command.commands[name]
        command.make_context("fairmend", rest)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.relative_to(ROOT)))
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    broken = [link for link in _LINK.findall(document.read_text()) if not (document.parent / link).exists()]

    assert broken == []
