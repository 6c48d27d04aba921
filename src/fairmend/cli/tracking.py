"""The command `fairmend log`: a finished run for an experiment tracker."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fairmend.cli.display import opened
from fairmend.cli.options import CommonOptions
from fairmend.cli.runs import finished
from fairmend.cli.trust import read_back
from fairmend.errors import InputError

_TRACKERS = ("mlflow",)


def log(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The --out folder of a finished run.")],
    *,
    to: Annotated[str, typer.Option("--to", metavar="NAME", help=f"The tracker: {', '.join(_TRACKERS)}.")],
    weights: Annotated[
        bool, typer.Option("--weights", help="Send the files with the repaired model's weights too.")
    ] = False,
    common: CommonOptions,
) -> None:
    """Write a finished run to an experiment tracker: settings as parameters, held-out figures as metrics, its files.

    The lines of a comparison or sweep become runs of their own within it. MLflow's own variables say where to:
    MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME; MLflow's reports about its use to its makers are switched off.

    Example: `MLFLOW_TRACKING_URI=http://localhost:5000 fairmend log repaired --to mlflow`
    """
    with opened(common) as screen:
        if to not in _TRACKERS:
            raise InputError(f"--to must be one of {', '.join(_TRACKERS)}, got {to!r}")
        from fairmend.report.tracking import Tracked, files_of, flat, lines_of, to_mlflow

        kind, content = finished(folder)
        with read_back(folder):
            session: Any = content.get("session", {})
            run = Tracked(
                name=folder.absolute().name,
                parameters=flat(content["settings"]) | flat(session.get("request", {}), "request."),
                metrics=_figures(content),
                files=files_of(folder, weights),
                lines=lines_of(folder / f"{Path(kind.file).stem}.csv") if "rows" in content else (),
            )
            tags = {"kind": kind.name, "command": str(session.get("command", "")), "version": _version(content)}
        screen.note(f"Note: sending {len(run.files)} files, {len(run.metrics)} figures and {len(run.lines)} lines")
        made, where = to_mlflow(run, folder, tags)
        screen.document({"run": made, "tracking_uri": where, "metrics": dict(run.metrics), "lines": len(run.lines)})
        screen.show(f"{folder} is run {made} at {where}.")


def _figures(content: dict[str, Any]) -> dict[str, float]:
    """The held-out figures of a repair; a study has none of its own."""
    if "splits" in content:
        from fairmend.tabular.repair.results import figures_of as of_tabular

        return of_tabular(content)
    if content.get("held_out") is not None:
        from fairmend.language.records.results import figures_of as of_language

        return of_language(content["held_out"])
    return {}


def _version(content: dict[str, Any]) -> str:
    return str(content.get("versions", content).get("fairmend", ""))
