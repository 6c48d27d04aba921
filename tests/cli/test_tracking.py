"""`fairmend log`: what MLflow's own client reads back from its store on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run as Logged

from .conftest import OWN, REPAIR, Run, arguments
from .language_desk import UNRANKED, lm

COMPARE = OWN | {"--states": 30, "--seeds": 2, "--search": "annealing, dice", "--out": "compared"}


@pytest.fixture
def mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """The client of a store in a folder, which is where `fairmend log` writes to."""
    uri = f"file:{tmp_path / 'mlruns'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return MlflowClient(uri)


def logged(run: Run, folder: str, *more: str) -> dict[str, Any]:
    outcome = run("log", folder, "--to", "mlflow", "--json", *more)
    assert outcome.code == 0, outcome.message
    return outcome.document


def names(client: MlflowClient, run: Logged) -> set[str]:
    return {file.path for file in client.list_artifacts(run.info.run_id)}


def test_a_repair_is_a_run_with_its_settings_figures_and_files(run: Run, desk: Path, mlflow: MlflowClient) -> None:
    assert run("tabular", "repair", *arguments(REPAIR)).code == 0
    made = mlflow.get_run(logged(run, "out")["run"])
    result = json.loads(Path("out/result.json").read_text())
    judged = result["splits"]["test"]["comparison"]
    assert made.info.status == "FINISHED"
    assert made.info.run_name == "out"
    assert made.data.params["states"] == "300"
    assert made.data.params["request.label"] == "hired"
    assert "seconds" not in made.data.params
    metrics = made.data.metrics
    assert metrics["test/equalized_odds_difference/before"] == judged["before"]["value"]["value"]
    assert metrics["test/f1/after"] == judged["after"]["utilities"]["f1"]["value"]
    assert metrics["test/f1/change_low"] == judged["utility_changes"]["f1"]["interval"]["low"]
    assert made.data.tags["fairmend.kind"] == "tabular repair"
    files = names(mlflow, made)
    assert files >= {"README.md", "result.json", "mask.json", "front.json"}
    assert not {"run.sqlite", "network.safetensors", "network.onnx"} & files
    with_weights = mlflow.get_run(logged(run, "out", "--weights")["run"])
    assert names(mlflow, with_weights) >= {"network.safetensors", "network.onnx"}


def test_a_repair_of_a_language_model_is_logged_by_its_held_out_figures(
    run: Run, office: Path, mlflow: MlflowClient
) -> None:
    assert lm(run, "repair", UNRANKED | {"--method": "random"}).code == 0
    made = mlflow.get_run(logged(run, "out")["run"])
    held_out = json.loads(Path("out/result.json").read_text())["held_out"]
    assert made.data.metrics["people/bias/change"] == held_out["axes"][0]["change"]["change"]
    assert made.data.metrics["perplexity/times"] == held_out["perplexity"]["ratio"]
    assert made.data.metrics["drift"] == held_out["drift"]["value"]
    assert made.data.params["alpha"] == "0.4"


def test_the_lines_of_a_study_are_runs_within_its_run(run: Run, desk: Path, mlflow: MlflowClient) -> None:
    assert run("tabular", "compare", *arguments(COMPARE)).code == 0
    made = mlflow.get_run(logged(run, "compared")["run"])
    lines = mlflow.search_runs([made.info.experiment_id], f"tags.`mlflow.parentRunId` = '{made.info.run_id}'")
    rows = {row["search"]: row for row in json.loads(Path("compared/compare.json").read_text())["rows"]}
    assert {line.data.params["search"] for line in lines} == set(rows)
    for line in lines:
        assert line.data.metrics["test_unfairness"] == rows[line.data.params["search"]]["test_unfairness"]
    assert names(mlflow, made) >= {"compare.csv", "compare.json", "compare.png"}


def test_what_cannot_be_logged_is_refused(
    run: Run, desk: Path, mlflow: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("empty").mkdir()
    for folder, said in (("empty", "holds no finished run"), ("nowhere", "holds no finished run")):
        refused = run("log", folder, "--to", "mlflow")
        assert refused.code == 2
        assert said in refused.message
    assert run("tabular", "repair", *arguments(REPAIR)).code == 0
    assert "mlflow" in run("log", "out", "--to", "wandb").message
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{desk / 'another'}")
    refused = run("log", "out", "--to", "mlflow")
    assert refused.code == 2
    assert "maintenance mode" in refused.message
    assert "MLFLOW_TRACKING_URI" in refused.message
