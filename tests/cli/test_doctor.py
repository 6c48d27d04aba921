"""`fairmend doctor`: what it says of a sound installation, and of one that is not."""

from __future__ import annotations

import importlib.util
import os
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch

import fairmend
from fairmend import health
from fairmend.errors import ModelError
from fairmend.evaluation import Measurement
from fairmend.tabular.counting.evaluator import TabularEvaluator

from .conftest import Run

SELF_CHECKS = [
    "network: kernel as torch",
    "network: batches as torch",
    "model: cache and padding",
    "model: gates",
    "model: folded as masked",
    "model: saved and reloaded",
]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, with a cache in it that holds one file."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("FAIRMEND_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache" / "tables-1").mkdir(parents=True)
    (tmp_path / "cache" / "tables-1" / "a.csv").write_bytes(b"x" * 2_000_000)
    return tmp_path / "cache"


def found(outcome, name: str) -> dict:
    (one,) = [each for each in outcome.document["checks"] if each["name"] == name]
    return one


def test_a_sound_installation_is_called_so(run: Run, tmp_path: Path) -> None:
    outcome = run("doctor", "--json")

    assert [each for each in outcome.document["checks"] if not each["ok"]] == []
    assert outcome.code == 0
    assert outcome.document["fairmend"] == fairmend.__version__
    assert [each["name"] for each in outcome.document["checks"] if each["section"] == "self-check"] == SELF_CHECKS
    for package in ("numpy", "torch", "transformers", "onnx", "rich"):
        assert metadata.version(package) in found(outcome, package)["found"]
    assert found(outcome, "folder")["found"].startswith("~/cache, writable, ")
    assert found(outcome, "content")["found"] == "2.0 MB: tables-1 2.0 MB"
    assert f"torch {torch.get_num_threads()}" in found(outcome, "used")["found"]
    assert str(tmp_path) not in outcome.out


def without_self_check(monkeypatch: pytest.MonkeyPatch) -> None:
    for wing in ("tabular", "language"):
        monkeypatch.setattr(f"fairmend.{wing}.health.self_check", lambda seed: iter(()))


def test_people_get_a_line_for_each_check(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    without_self_check(monkeypatch)
    outcome = run("doctor", "--quiet")

    assert outcome.code == 0
    lines = outcome.out.splitlines()
    assert [line for line in lines if not line.startswith(" ")][:4] == ["versions", "devices", "cache", "threads"]
    assert any(line.split()[:3] == ["ok", "numpy", np.__version__] for line in lines)
    assert lines[-1].endswith("checks ok.")


def test_a_kernel_that_counts_wrongly_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    measure = TabularEvaluator.measure

    def one_too_many(self: TabularEvaluator, masks):
        *others, last = measure(self, masks)
        parts = (last.parts[0] + 1, *last.parts[1:])
        return [*others, Measurement(last.bias, last.utility, parts, last.n)]

    monkeypatch.setattr(TabularEvaluator, "measure", one_too_many)
    monkeypatch.setattr("fairmend.language.health.self_check", lambda seed: iter(()))
    outcome = run("doctor", "--json")

    assert outcome.code == 1
    assert outcome.document["ok"] is False
    assert not found(outcome, SELF_CHECKS[0])["ok"]
    assert "torch says" in found(outcome, SELF_CHECKS[0])["found"]


def refuted(*_: object) -> None:
    raise ModelError("decoding with the cache does not equal one pass")


@pytest.mark.parametrize(
    ("broken", "by", "name", "reason"),
    [
        (
            "fairmend.language.models.proof.prove_decoding",
            refuted,
            "model: cache and padding",
            "does not equal one pass",
        ),
        ("fairmend.language.models.proof.prove_gates", refuted, "model: gates", "does not equal one pass"),
        ("fairmend.language.heads.folding.fold", lambda model, *_: model, "model: folded as masked", "differ by up to"),
    ],
)
def test_a_language_model_that_is_not_measured_or_saved_right_is_told(
    run: Run, monkeypatch: pytest.MonkeyPatch, broken: str, by: object, name: str, reason: str
) -> None:
    monkeypatch.setattr("fairmend.tabular.health.self_check", lambda seed: iter(()))
    monkeypatch.setattr(broken, by)
    outcome = run("doctor")

    assert outcome.code == 1
    failed = [line for line in outcome.out.splitlines() if line.strip().startswith("failed")]
    assert name in failed[0]
    assert reason in failed[0]
    assert outcome.out.splitlines()[-1].startswith(f"{len(failed)} of ")


def test_without_the_language_extra_nothing_has_failed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    version, find_spec = metadata.version, importlib.util.find_spec

    def lacking(package: str) -> str:
        if package == "transformers":
            raise metadata.PackageNotFoundError(package)
        return version(package)

    monkeypatch.setattr(metadata, "version", lacking)
    monkeypatch.setattr(
        "fairmend.language.health.find_spec", lambda name: None if name == "transformers" else find_spec(name)
    )
    monkeypatch.setattr("fairmend.tabular.health.self_check", lambda seed: iter(()))
    outcome = run("doctor", "--json")

    assert outcome.code == 0
    assert "pip install 'fairmend[language]'" in found(outcome, "extra language")["found"]
    assert not [each for each in outcome.document["checks"] if each["name"].startswith("model")]


@pytest.mark.parametrize(
    ("installed", "reason"), [("1.26.4", "1.26.4, supported is >=2.0"), (None, "not installed: run pip install numpy")]
)
def test_a_release_that_is_not_supported_is_told(
    run: Run, monkeypatch: pytest.MonkeyPatch, installed: str | None, reason: str
) -> None:
    version = metadata.version

    def other(package: str) -> str:
        if package == "numpy":
            if installed is None:
                raise metadata.PackageNotFoundError(package)
            return installed
        return version(package)

    monkeypatch.setattr(metadata, "version", other)
    without_self_check(monkeypatch)
    outcome = run("doctor", "--json")

    assert outcome.code == 1
    assert not found(outcome, "numpy")["ok"]
    assert reason in found(outcome, "numpy")["found"]


def test_a_cache_that_cannot_be_used_is_told(run: Run, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_self_check(monkeypatch)
    monkeypatch.setenv("FAIRMEND_CACHE", str(cache / "tables-1" / "a.csv" / "deeper"))
    outcome = run("doctor", "--json")

    assert outcome.code == 1
    assert "is not a folder; name another folder in the environment variable" in found(outcome, "folder")["found"]


def test_a_cache_that_is_not_there_yet_is_not_made(run: Run, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_self_check(monkeypatch)
    monkeypatch.setenv("FAIRMEND_CACHE", str(cache.parent / "later"))

    assert "not made yet" in found(run("doctor", "--json"), "folder")["found"]
    assert not (cache.parent / "later").exists()


def test_more_threads_than_processors_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1 + (os.cpu_count() or 1))
    (used,) = [each for each in health.environment(1) if each.section == "threads"]

    assert not used.ok
    assert "use --threads 1" in used.found


def test_a_wing_that_cannot_be_imported_is_told_and_hides_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str):
        if name == "fairmend.tabular.health":
            raise ImportError("libfoo.so.1: cannot open shared object file")
        return importlib.import_module(name)

    monkeypatch.setattr("fairmend.cli.doctor.import_module", broken)
    monkeypatch.setattr("fairmend.language.health.self_check", lambda seed: iter(()))
    outcome = run("doctor", "--json")

    assert outcome.code == 1
    assert "libfoo.so.1" in found(outcome, "import fairmend.tabular.health")["found"]


def test_bad_input_ends_with_2(run: Run) -> None:
    outcome = run("doctor", "--threads", "0")

    assert outcome.code == 2
    assert "--threads must be at least 1" in outcome.message
