"""Finished runs written to an experiment tracker: MLflow."""

from __future__ import annotations

import csv
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairmend.errors import RunError, first_line
from fairmend.escaping import visible
from fairmend.records import RUN

_LONGEST_NAME, _LONGEST_VALUE = 250, 6000  # of a parameter, by MLflow
_WEIGHTS = (".safetensors", ".gguf", ".onnx", ".bin")


@dataclass(frozen=True)
class Tracked:
    """What a tracker is told of a finished run, or of one line of a study.

    Attributes:
        name: for people.
        parameters: settings by name.
        metrics: figures by name, "test/f1/after"; undefined ones are left out.
        files: what belongs to it.
        lines: of a study, one per row of its table.
    """

    name: str
    parameters: Mapping[str, str]
    metrics: Mapping[str, float]
    files: tuple[Path, ...] = ()
    lines: tuple[Tracked, ...] = ()


def flat(settings: Mapping[str, Any], above: str = "") -> dict[str, str]:
    """Settings within settings as one mapping of texts: {"soft": {"steps": 6}} is {"soft.steps": "6"}; no None."""
    found: dict[str, str] = {}
    for name, value in settings.items():
        place = f"{above}{name}"
        if isinstance(value, Mapping):
            found |= flat(value, f"{place}.")
        elif value is not None:
            found[place] = str(value)
    return found


def lines_of(table: Path) -> tuple[Tracked, ...]:
    """The rows of a study's CSV file: numbers as metrics, texts as parameters.

    Raises:
        RunError: it cannot be read.
    """
    try:
        with table.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise RunError(f"{table} cannot be read ({first_line(error)}): give the study's command again") from error
    return tuple(_line(number, row) for number, row in enumerate(rows, start=1))


def files_of(folder: Path, weights: bool) -> tuple[Path, ...]:
    """What a run left, but for its store, which only resuming needs; the models too if `weights`."""
    return tuple(
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not path.is_symlink()
        and not path.name.startswith((RUN, "."))
        and (weights or path.suffix not in _WEIGHTS)
    )


def to_mlflow(run: Tracked, folder: Path, tags: Mapping[str, str]) -> tuple[str, str]:
    """Write a run to the tracking server, database or folder that MLflow is set to; return the run's ID and where.

    Args:
        run: what is written; the lines of a study become runs of their own within it.
        folder: that its files lie in.
        tags: of the run.

    Raises:
        RunError: MLflow is not installed, or refuses.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # it reports its use to its makers
    try:
        import mlflow
        from mlflow.exceptions import MlflowException
    except ImportError as error:
        raise RunError(f"--to mlflow needs MLflow ({error}): pip install 'fairmend[mlflow]'") from error
    where = mlflow.get_tracking_uri()
    try:
        with mlflow.start_run(run_name=run.name) as made:
            mlflow.set_tags({f"fairmend.{name}": value for name, value in tags.items()})
            _write(mlflow, run)
            for path in run.files:
                inside = path.parent.relative_to(folder)
                mlflow.log_artifact(str(path), None if inside == Path() else inside.as_posix())
            for line in run.lines:
                with mlflow.start_run(run_name=line.name, nested=True):
                    _write(mlflow, line)
    except (MlflowException, OSError, ValueError, ImportError) as error:  # ImportError: it lacks a driver
        raise RunError(
            f"MLflow at {where} refuses: {first_line(error)}. Set MLFLOW_TRACKING_URI to a server that runs; a "
            "database needs the whole of MLflow (pip install mlflow), of which fairmend[mlflow] is the client"
        ) from error
    return made.info.run_id, where


def _write(mlflow: Any, run: Tracked) -> None:
    mlflow.log_params({_name(name): visible(value)[:_LONGEST_VALUE] for name, value in run.parameters.items()})
    mlflow.log_metrics({_name(name): value for name, value in run.metrics.items() if not math.isnan(value)})


def _name(text: str) -> str:
    """A name with the characters that MLflow takes."""
    return re.sub(r"[^\w./ :-]", "_", visible(text), flags=re.ASCII)[:_LONGEST_NAME]


def _line(number: int, row: Mapping[str, str]) -> Tracked:
    numbers = dict(_numbers(row))
    texts = {name: value for name, value in row.items() if value and name not in numbers}
    return Tracked(" ".join((str(number), *texts.values()))[:_LONGEST_NAME], texts, numbers)


def _numbers(row: Mapping[str, str]) -> Iterator[tuple[str, float]]:
    for name, value in row.items():
        try:
            yield name, float(value)
        except ValueError:
            continue
