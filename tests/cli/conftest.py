"""A desk with a small network and a small table on it, and a way to run commands there."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from fairmend.cli.main import app
from fairmend.tabular.formats.formats import write_onnx, write_safetensors
from fairmend.tabular.networks.activations import Activation
from fairmend.tabular.networks.networks import Layer, Network

N_ROWS = 400


def small_network(n_features: int = 3, n_hidden: int = 8, n_outputs: int = 1) -> Network:
    """A network whose score follows its first feature."""
    rng = np.random.default_rng(3)
    first = rng.normal(size=(n_hidden, n_features))
    second = np.repeat(np.sign(first[:, :1]).T / n_hidden, n_outputs, axis=0) + rng.normal(
        scale=0.05, size=(n_outputs, n_hidden)
    )
    relu, identity = Activation.parse("relu"), Activation.parse("identity")
    return Network((Layer(first, np.zeros(n_hidden), relu), Layer(second, np.full(n_outputs, -0.05), identity)))


def small_table() -> pd.DataFrame:
    """People with three scores, a sex and whether they were hired; women's first score is lower at equal merit."""
    rng = np.random.default_rng(1)
    merit = rng.normal(size=N_ROWS)
    woman = rng.random(N_ROWS) < 0.5
    columns: dict[str, Any] = {
        "score": merit + rng.normal(scale=0.5, size=N_ROWS) - 0.6 * woman,
        "years": rng.normal(size=N_ROWS),
        "test": merit + rng.normal(size=N_ROWS),
    }
    frame = pd.DataFrame(columns).round(4)
    frame["sex"] = np.where(woman, "F", "M")
    frame["hired"] = np.where(merit > 0, "yes", "no")
    return frame


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str
    exception: BaseException | None

    @property
    def message(self) -> str:
        """Standard error on one line, without the frame that usage errors have."""
        return " ".join(self.err.translate(str.maketrans(dict.fromkeys("│╭╮╰╯─", " "))).split())

    @property
    def document(self) -> Any:
        """The one JSON document on standard output."""
        return json.loads(self.out)


Run = Callable[..., Outcome]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command in this process."""
    monkeypatch.setenv("COLUMNS", "200")

    def invoke(*arguments: str | Path) -> Outcome:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        return Outcome(result.exit_code, result.stdout, result.stderr, result.exception)

    return invoke


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with people.csv, net.safetensors and net.onnx; the cache is empty."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FAIRMEND_CACHE", str(tmp_path / "cache"))
    small_table().to_csv("people.csv", index=False)
    write_safetensors(small_network(), "net.safetensors")
    write_onnx(small_network(), "net.onnx")
    return tmp_path


@pytest.fixture
def office(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a language model, prompts, a text and a scorer; an empty cache, no network."""
    from huggingface_hub import constants

    from .language_desk import furnish  # transformers, which the other tests do without

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FAIRMEND_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache" / "hub"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    furnish()
    return tmp_path


OWN = {
    "--model": "net.safetensors",
    "--data": "people.csv",
    "--label": "hired",
    "--sensitive": "sex",
    "--drop-sensitive": True,
}
REPAIR = OWN | {"--states": 300, "--out": "out"}
SAVED = {
    *("network.safetensors", "network.onnx", "mask.json", "front.json", "result.json", "README.md"),
    *("run.sqlite", "original.safetensors", "report.html"),
}


def arguments(options: dict[str, Any]) -> list[str]:
    """Options as words; False and None leave one out."""
    words: list[str] = []
    for name, value in options.items():
        if value is True:
            words.append(name)
        elif value is not None and value is not False:
            words += [name, str(value)]
    return words
