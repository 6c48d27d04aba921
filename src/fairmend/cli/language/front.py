"""The command `fairmend lm pick`, and the table of a front."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairmend.cli.display import Screen, opened
from fairmend.cli.language.inputs import open_model, options_of
from fairmend.cli.language.options import Save
from fairmend.cli.language.runs import command_line
from fairmend.cli.options import CommonOptions, whole
from fairmend.cli.tables import leave_report, present, saved_parts
from fairmend.cli.trust import TrustRemoteCode, read_back, require_same_trust
from fairmend.errors import RunError
from fairmend.language.records.formats import CHECKPOINT, formats_of

if TYPE_CHECKING:
    from rich.console import RenderableType

    from fairmend.report.page import Page


def pick(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The --out folder of a repair with --front.")],
    *,
    point: Annotated[int, typer.Option("--point", metavar="N", parser=whole, help="Number of the point, see show.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the checkpoint: new or empty.")],
    save: Save = CHECKPOINT,
    trust_remote_code: TrustRemoteCode = False,
    common: CommonOptions,
) -> None:
    """Save another trade-off of a repair's front as a model: drop the heads of that point.

    `fairmend show DIR` lists the points. The model is read again from where the repair found it, and it must be the
    same. Saved in --out: the checkpoint, for plain transformers, mask.json, point.json with the point's figures and
    README.md, a model card in words.

    Example: `fairmend lm pick repaired --point 3 --out picked`
    """
    with opened(common) as screen:
        from fairmend.language.models.writing import require_new
        from fairmend.language.records.cards import point_card
        from fairmend.language.records.checkpoints import formats_in_words, require_formats
        from fairmend.language.records.fronts import load_front, load_point, mask_at, point_of, save_point

        formats = formats_of(save)
        with read_back(folder):
            front = load_front(folder)
            point_of(front, point)
            request = _request(folder)
        require_new(out)
        name, called, options, _ = options_of(request)
        require_same_trust(trust_remote_code, request, folder)
        lm = replace(open_model(name, replace(options, trust_remote_code=trust_remote_code), screen), name=called)
        require_formats(lm, formats)
        with read_back(folder):  # before anything is written
            mask = mask_at(front, point, lm)
            point_card(front, point_of(front, point), lm)
        files = save_point(front, point, lm, out, formats=formats, command=command_line())
        for said in formats_in_words(lm, mask, formats):
            screen.note(said)
        _present(load_point(out), files | leave_report(out, page, screen), screen)


def show(folder: Path, screen: Screen) -> None:
    """Show the point saved in a folder."""
    from fairmend.language.records.fronts import load_point

    _present(load_point(folder), {}, screen)


def page(folder: Path) -> Page:
    """The report of the point saved in a folder."""
    from fairmend.language.records.fronts import load_point
    from fairmend.language.records.pages import point_page

    return point_page(load_point(folder))


def front_parts(front: Mapping[str, Any]) -> list[RenderableType]:
    """What a front says: one line per point, by its number."""
    if "tables" not in front:
        return ["There is a front too, whose table fairmend 0.1 did not save: see front.csv.\n"]
    return [*saved_parts(front, tight=True), "To save another point: fairmend lm pick DIR --point N --out MODEL_DIR\n"]


def _request(folder: Path) -> Mapping[str, Any]:
    """The options that a repair was asked for with, from its result, or from its store.

    Raises:
        RunError: neither says.
    """
    from fairmend.language.records.saving import load_result

    request: Mapping[str, Any] = load_result(folder)["session"]["request"]
    if not request:
        raise RunError(
            f"{folder} was not made by the command line, and does not say where its model is: save the point with "
            "fairmend.language.save_point"
        )
    return request


def _present(saved: Mapping[str, Any], files: Mapping[str, Path], screen: Screen) -> None:
    from fairmend.language.records.results import count_saved, heads_in_words

    point = saved["point"]
    heads = heads_in_words(count_saved(point, saved["heads"]))
    said = f"{saved['model']['name']}, point {point['point']}: {heads}."
    present(saved, [said, *saved_parts(saved, tight=True)], screen, files)
