"""The command `fairmend lm repair`, and what `fairmend resume` and `show` do with its folder."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairmend.cli.display import Interrupted, Screen, opened
from fairmend.cli.language.inputs import (
    LanguageInputs,
    absolute,
    measuring,
    open_language_inputs,
    reopen_language_inputs,
    stored_settings,
)
from fairmend.cli.language.options import (
    COLLECTED,
    MEASURED,
    RANKED,
    REPAIR_PANEL,
    SAMPLES,
    SCORED,
    SCORES_HELP,
    SEARCHED,
    SLICE_HELP,
    MeasureOptions,
    Model,
    ModelOptions,
    Save,
)
from fairmend.cli.language.runs import command_line, go_on, language_run, read_collection, read_scores
from fairmend.cli.options import RARE, CommonOptions, Given, WorkerOptions
from fairmend.cli.tables import leave_report, present
from fairmend.cli.trust import TrustOptions
from fairmend.errors import InputError
from fairmend.language.records.formats import CHECKPOINT, formats_of
from fairmend.language.repair.settings import SOFT
from fairmend.settings import option_of

if TYPE_CHECKING:
    from fairmend.language.models.models import LanguageModel
    from fairmend.language.repair.settings import RepairSettings
    from fairmend.language.scores.head_scores import HeadScores
    from fairmend.report.page import Page
    from fairmend.runs import Store


def repair(
    model: Model,
    *,
    options: ModelOptions,
    measure: MeasureOptions,
    given: Annotated[Given, MEASURED, SCORED, RANKED, COLLECTED, SEARCHED, SAMPLES],
    objective: Annotated[
        list[str] | None,
        typer.Option(
            "--objective",
            metavar="python:MODULE:FUNCTION",
            rich_help_panel=REPAIR_PANEL,
            help="A further figure that must not get worse: a function of your own that takes the transformers model, "
            "heads dropped, and its tokenizer, and gives one number per item, lower is better. May be given several "
            "times.",
        ),
        RARE,
    ] = None,
    scores: Annotated[Path | None, typer.Option("--scores", metavar="FILE.csv", help=SCORES_HELP), RARE] = None,
    collected: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="DIR",
            help="Folder of fairmend lm collect, made with the same options: its subsets are learned from, and count "
            "as --subsets. active also measures the ranking's sets.",
        ),
        RARE,
    ] = None,
    sliced: Annotated[
        bool,
        typer.Option("--slice", help=f"{SLICE_HELP} Where the dropped heads do not allow it, they are zeroed."),
        RARE,
    ] = False,
    save: Save = CHECKPOINT,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Folder for the result; made if need be. One that holds this very run goes on with it, one that holds "
            "anything else is refused.",
        ),
    ],
    asked: WorkerOptions,
    common: CommonOptions,
) -> None:
    """Rank the attention heads, choose those to drop, judge on held-out prompts and text, and save the checkpoint.

    A repair of --bias turns heads and neurons a little down or up instead, unless --method or --scores is given.

    Saved in --out: the repaired checkpoint (gains of heads are in its weights, 0 for dropped ones, so that plain
    transformers loads it) or what --save names, mask.json, head_map.png and .svg, result.json, run.sqlite and
    README.md, a model card in words. The tables show before and after on prompts that the search never saw, further
    axes of --axis among them, and the continuations that changed most, offensive words masked. If nothing less biased
    is found that keeps the perplexity, the model stays as it is, and the output says so.

    With --front, further trade-offs between bias and perplexity are judged and written to front.json, front.csv and
    front.png and .svg; `fairmend lm pick` saves another one of them as a model.

    Ctrl-C keeps everything measured so far; `fairmend resume DIR` goes on with it.

    Example: `fairmend lm repair smollm2 --bias pronouns --out repaired`

    Example: `fairmend lm repair smollm2 --axis gender_and_sex,race_ethnicity --scorer lexical --out repaired`
    """
    with opened(common, asked) as screen:
        formats = formats_of(save)
        ranked = measure.bias is None or measure.protocol == "fasp" or scores is not None
        settings = measuring(measure, common.seed, given, **({} if ranked else {"method": SOFT}))
        said = {name: option_of(name, given.known[name]) for name in given}
        settings.require_read(said if scores is None else said | {"scores": "--scores"})
        table = read_scores(scores)
        inputs = open_language_inputs(model, options, measure, screen, common.seed)
        files = {"scores": scores, "from": collected}
        extra: dict[str, Any] = {name: None if path is None else absolute(path) for name, path in files.items()}
        extra |= {"slice": sliced, "save": list(formats), "objectives": list(objective or ())}
        _repair(out, inputs, settings, table, extra, screen)


def resume(folder: Path, header: Mapping[str, Any], trust: TrustOptions, screen: Screen) -> None:
    """Go on with the repair in a folder, whose store has this header."""
    from fairmend.language.repair.settings import RepairSettings

    settings = stored_settings(RepairSettings.from_json, header)
    inputs = reopen_language_inputs(header, folder, trust, screen, settings.seed)
    request = header["request"]
    extra = {"scores": request.get("scores"), "from": request.get("from"), "slice": bool(request.get("slice"))}
    extra["save"] = list(formats_of(request.get("save", CHECKPOINT)))  # fairmend 0.1 said nothing
    extra["objectives"] = list(trust.objective or ())
    table = read_scores(extra["scores"])
    _repair(folder, inputs, settings, table, extra, screen)


def show(folder: Path, screen: Screen) -> None:
    """Show the repair saved in a folder."""
    _present(folder, {}, screen)


def _repair(
    out: Path,
    inputs: LanguageInputs,
    settings: RepairSettings,
    scores: HeadScores | None,
    extra: Mapping[str, Any],
    screen: Screen,
) -> None:
    from fairmend.language.models.writing import require_savable
    from fairmend.language.records.checkpoints import formats_in_words, require_formats
    from fairmend.language.records.run_directories import open_run
    from fairmend.language.records.saving import save_repair
    from fairmend.language.repair.objectives import load_objective
    from fairmend.language.repair.repair import repair_model

    lm = inputs.lm
    require_savable(lm)
    require_formats(lm, extra["save"], sliced=extra["slice"])
    if extra["slice"]:
        if settings.turns_neurons:
            raise InputError("--slice removes dropped heads, and --soft-units all drops none: leave one of them out")
        _require_sliceable(lm)
    request = {**inputs.request, **extra}
    objectives = [load_objective(spec) for spec in extra["objectives"]]

    def begin() -> Store:
        return open_run(out, inputs.subject, settings, scores=scores, objectives=objectives, request=request)

    with (
        read_collection(extra["from"], settings) as subsets,
        language_run(out, begin, screen, go_on(out, request)) as store,
    ):
        repaired = repair_model(
            inputs.subject,
            settings,
            scores=scores,
            subsets=subsets,
            objectives=objectives,
            store=store,
            progress=screen.steps,
            workers=screen.workers,
        )
        screen.steps.close()
        files = save_repair(
            repaired,
            lm,
            out,
            formats=extra["save"],
            slice_heads=bool(extra["slice"]),
            request=request,
            command=command_line(),
        )
    for said in formats_in_words(lm, repaired.mask, extra["save"]):
        screen.note(said)
    _present(out, files | leave_report(out, page, screen), screen)
    if repaired.run.stopped == "interrupted":
        screen.warn(
            f"Stopped by Ctrl-C: this is the best so far, not judged on held-out prompts; {go_on(out, request)}"
        )
        raise Interrupted


def page(folder: Path) -> Page:
    """The report of the repair saved in a folder."""
    from fairmend.files import read_if_there
    from fairmend.language.records.fronts import FRONT, load_front
    from fairmend.language.records.pages import LARGEST_PICTURE, repair_page
    from fairmend.language.records.results import MASK
    from fairmend.language.records.saving import load_result
    from fairmend.records import read

    return repair_page(
        load_result(folder),
        mask=read(folder / MASK.file, MASK) if (folder / MASK.file).exists() else None,
        front=load_front(folder) if (folder / FRONT.file).is_file() else None,
        head_map=read_if_there(folder / "head_map.svg", LARGEST_PICTURE),
        folder=shlex.quote(str(folder)),
    )


def _require_sliceable(lm: LanguageModel) -> None:
    """Refuse --slice for an architecture that cannot be sliced, before hours of search: try it on the first groups."""
    from fairmend.errors import ModelError
    from fairmend.language.heads.slicing import slice_groups

    space, start = lm.head_map.space(), 0
    units: list[int] = []
    for site in lm.head_map.sites:
        units += range(start, start + site.n_heads // site.n_kv_groups)
        start += site.n_heads
    try:
        slice_groups(lm.model, space.mask(units), lm.head_map)
    except ModelError as error:
        raise ModelError(f"--slice cannot work with {lm.name}: {error}") from error


def _present(folder: Path, files: Mapping[str, Path], screen: Screen) -> None:
    from fairmend.cli.language.front import front_parts
    from fairmend.cli.language.tables import repair_parts
    from fairmend.language.records.fronts import FRONT, load_front
    from fairmend.language.records.saving import load_result

    result = load_result(folder)
    front = load_front(folder) if (folder / FRONT.file).is_file() else None
    for note in result["scores"]["notes"]:
        screen.note(f"Note: {note}")
    parts = [*repair_parts(result), *([] if front is None else front_parts(front))]
    present(result if front is None else {**result, "front": front}, parts, screen, files)
