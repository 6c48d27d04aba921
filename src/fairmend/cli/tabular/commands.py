"""The commands `fairmend tabular audit` and `repair`, and what `fetch`, `resume` and `show` do for them."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairmend import __version__
from fairmend.cli.display import Interrupted, Screen, opened
from fairmend.cli.gates import FailAbove, Gate
from fairmend.cli.options import RARE, CommonOptions, Given, WorkerOptions, whole
from fairmend.cli.tabular.inputs import Inputs, make_settings, open_inputs, source_of
from fairmend.cli.tabular.options import LIMITED, SEARCHED, SourceOptions
from fairmend.cli.trust import TrustOptions, require_trust, stored
from fairmend.errors import InputError

if TYPE_CHECKING:
    from fairmend.tabular.repair.settings import RepairSettings


def audit(
    *,
    source: SourceOptions,
    objective: Annotated[
        str,
        typer.Option(
            "--objective", metavar="NAME", help="The fairness figure, by fairlearn's name; see repair --help."
        ),
    ] = "equalized_odds_difference",
    draws: Annotated[
        int,
        typer.Option("--draws", metavar="N", parser=whole, help="Bootstrap and permutation draws, at least 100."),
    ] = 2000,
    fail_above: FailAbove = None,
    common: CommonOptions,
) -> None:
    """Measure how unfair a network is, and say in words whether there is anything to repair.

    For every split: the fairness figure (equalized-odds difference, EOD, unless told otherwise) with its bootstrap
    interval, the noise floor (what a network without any group difference would show on as many people), the excess
    over it, the p-value of a permutation test, F1 and accuracy; and for every group its true and false positive rates
    with counts. Nothing is changed.

    With --fail-above, the test split decides, or every split where there is none; ratios and accuracies count as what
    they lack of 1.

    Example: `fairmend tabular audit --preset compas-race`

    Example: `fairmend tabular audit --model net.safetensors --data people.csv --label hired --positive yes
    --sensitive sex,race`
    """
    with opened(common) as screen:
        from fairmend.tabular.fairness.metrics import find_objective
        from fairmend.tabular.repair.audit import audit as audit_network

        find_objective(objective)
        gate = Gate(fail_above)
        if draws < 100:
            raise InputError(f"--draws must be at least 100 to mean anything, got {draws}")
        inputs = open_inputs(source, screen, objective)
        found = audit_network(
            inputs.network, inputs.dataset, objective=objective, seed=common.seed, n_boot=draws, n_perm=draws
        )
        from fairmend.cli.tabular.tables import audit_parts
        from fairmend.records import plain

        judged = ["test"] if "test" in found.splits else list(found.splits)
        checked = gate.result({f"{split} split": found.splits[split].least for split in judged})
        screen.document(
            {"fairmend": __version__, "request": inputs.request}
            | plain(found)
            | checked
            | {
                "data": inputs.dataset.fingerprint(),
                "notes": list(inputs.notes),
                "warnings": list(inputs.warnings),
            }
        )
        screen.show(*audit_parts(found))
        gate.close(checked, screen)


def repair(
    *,
    source: SourceOptions,
    given: Annotated[Given, SEARCHED, LIMITED],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Folder for the result; made if need be. One that holds this very run goes on with it, one that holds "
            "anything else is refused. Default: ./fairmend-NAME, NAME being the preset or the data file.",
        ),
    ] = None,
    slim: Annotated[
        bool,
        typer.Option("--slim", help="Also save the network without the dropped neurons, which is smaller and faster."),
        RARE,
    ] = False,
    asked: WorkerOptions,
    common: CommonOptions,
) -> None:
    """Search for the neurons to drop, judge the best set on data the search never saw, and save the repaired network.

    Saved in --out: network.safetensors and network.onnx in the original shape (dropped neurons are silent in the
    weights, so that any runtime gives the repaired predictions), mask.json, result.json, run.sqlite and README.md, a
    model card in words. The table shows before and after with intervals, the test split first, which the search never
    saw. If nothing fairer is found that keeps the utility, it says so.

    Ctrl-C stops within a second, saves the best so far and says how to go on (`fairmend resume DIR`).

    Example: `fairmend tabular repair --preset compas-race --seconds 20 --out repaired`

    Example: `fairmend tabular repair --model net.onnx --data people.parquet --label hired --sensitive sex
    --max-drop 12 --keep 0.99`
    """
    with opened(common, asked) as screen:
        settings = make_settings(given, common.seed, source.preset)
        inputs = open_inputs(source, screen, settings.objective)
        folder = Path(f"fairmend-{inputs.title}") if out is None else out
        _repair(folder, inputs, settings, {**inputs.request, "slim": slim}, screen)


def fetch(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="adult, compas, german, bank or default; a preset's name fetches its table."
        ),
    ],
    *,
    common: CommonOptions,
) -> None:
    """Get a public data set into the cache, and print where it is.

    The download is checked against a pinned SHA-256; what is already there is not fetched again. The cache is the
    folder in the environment variable FAIRMEND_CACHE, or the user's cache folder. Presets fetch their data by
    themselves; this command is for doing it ahead, for example before going offline.

    Example: `fairmend fetch adult`
    """
    with opened(common) as screen:
        from fairmend.tabular.data.presets import fetch as fetch_table

        path = fetch_table(name, screen.steps.download)
        screen.steps.close()
        screen.document({"name": name, "path": str(path), "bytes": path.stat().st_size})
        screen.show(f"{name}: {path} ({path.stat().st_size:,} bytes)")


def resume(folder: Path, header: Mapping[str, Any], trust: TrustOptions, screen: Screen) -> None:
    """Go on with the repair in a folder, whose store has this header."""
    from fairmend.tabular.repair.settings import RepairSettings

    require_trust(trust, header["request"], folder)
    request = dict(header["request"])
    slim = bool(request.pop("slim", False))
    source = source_of(request)
    settings = stored(lambda: RepairSettings(**header["settings"]))
    inputs = open_inputs(source, screen, settings.objective)
    _repair(folder, inputs, settings, {**inputs.request, "slim": slim}, screen)


def show(folder: Path, screen: Screen) -> None:
    """Show the repair saved in a folder."""
    from fairmend.tabular.repair.saving import load_result

    _present(load_result(folder), screen)


def _repair(out: Path, inputs: Inputs, settings: RepairSettings, request: Mapping[str, Any], screen: Screen) -> None:
    from fairmend.runs.directories import tidy
    from fairmend.tabular.repair.repair import repair_network
    from fairmend.tabular.repair.saving import ORIGINAL, load_result, open_run, save_repair

    network, dataset = inputs.network, inputs.dataset
    settings.space(network)  # size limits that leave nothing to search are refused before a folder is made
    again = f"fairmend resume {shlex.quote(str(out))}"
    with tidy(out, made=[ORIGINAL]):
        try:
            store = open_run(out, network=network, dataset=dataset, settings=settings, request=request)
            with closing(store):
                repaired = repair_network(
                    network,
                    dataset,
                    settings,
                    store=store,
                    progress=screen.steps,
                    workers=screen.workers,
                    threads=screen.threads,
                )
            files = save_repair(
                repaired,
                network,
                dataset,
                out,
                request=request,
                slim=bool(request["slim"]),
                command=shlex.join(["fairmend", *sys.argv[1:]]),
            )
        except KeyboardInterrupt:
            screen.warn(f"Stopped by Ctrl-C. Everything measured so far is kept; go on with: {again}")
            raise Interrupted from None
    _present(load_result(out), screen, files)
    if repaired.run.stopped == "interrupted":
        screen.warn(
            f"Stopped by Ctrl-C after {repaired.run.asked:,} states. This is the best so far; go on with: {again}"
        )
        raise Interrupted


def _present(result: Mapping[str, Any], screen: Screen, files: Mapping[str, Path] | None = None) -> None:
    from fairmend.cli.tabular.tables import repair_parts

    written = {name: str(path) for name, path in (files or {}).items()}
    screen.document({**result, "files": written} if written else result)
    screen.show(*repair_parts(result))
    if written:
        screen.show("Written:", *(f"  {path}" for path in written.values()))
