"""What `fairmend resume`, `show` and `export` do with the folder of a run, whatever kind it is."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairmend.cli.display import opened
from fairmend.cli.language import front as language_front
from fairmend.cli.language import repair as language_repair
from fairmend.cli.language import studies as language_studies
from fairmend.cli.language import subsets as language_subsets
from fairmend.cli.language.runs import SCORING
from fairmend.cli.options import CommonOptions, WorkerOptions
from fairmend.cli.tabular import commands as tabular
from fairmend.cli.tabular import studies as tabular_studies
from fairmend.cli.trust import TrustOptions, read_back
from fairmend.errors import RunError

if TYPE_CHECKING:
    from fairmend.records import Kind

_COLLECTION = "language collection"
_KINDS: dict[str, tuple[ModuleType, str]] = {
    "tabular repair": (tabular, "result.json"),
    "language repair": (language_repair, "result.json"),
    "language comparison": (language_studies, "compare.json"),
    "language comparison at equal cost": (language_studies, "compare.json"),
    "language sweep": (language_studies, "sweep.json"),
    "language front point": (language_front, "point.json"),
    _COLLECTION: (language_subsets, ""),
    "tabular compare": (tabular_studies, "compare.json"),
    "tabular reproduce": (tabular_studies, "reproduce.json"),
    "tabular sweep": (tabular_studies, "sweep.json"),
}
"""Every kind of folder that a command leaves: who shows it and goes on with it, and the file of its result."""


def resume(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The --out folder of a run that was stopped.")],
    *,
    trust: TrustOptions,
    asked: WorkerOptions,
    common: CommonOptions,
) -> None:
    """Go on with a repair that Ctrl-C, a crash or a power cut stopped; show it if it is finished.

    Everything measured so far is in DIR, so nothing is measured twice, and the answer is the one that an
    uninterrupted run gives. Model, data and settings are those of the run: the files it names must still be there.
    --seed is ignored, because the run has its own. A comparison of language models is gone on with likewise.

    DIR may come from somebody else, so that no code is taken from it: a scorer or an objective of your own and
    --trust-remote-code are given again. A run of another version of fairmend, or one that is damaged, is refused.

    Example: `fairmend resume repaired`
    """
    with opened(common, asked) as screen:
        kind, interrupted = _result(folder)
        if kind is None or interrupted:
            from fairmend.runs.directories import require_version

            header = _header(folder)
            require_version(header, folder)
            _KINDS[header["kind"]][0].resume(folder, header, trust, screen)
            return
        screen.note(f"Note: the run in {folder} is finished; there is nothing to go on with.")
        with read_back(folder):
            _KINDS[kind][0].show(folder, screen)


def show(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The --out folder of a finished run.")],
    *,
    common: CommonOptions,
) -> None:
    """Show a saved repair or comparison again: its tables, or with --json what was saved.

    Example: `fairmend show repaired --json`
    """
    with opened(common) as screen:
        from fairmend.records import RUN

        kind, _ = _result(folder)
        if kind is None:  # the reader of repairs says what is missing
            collected = (folder / RUN).is_file() and _header(folder)["kind"] == _COLLECTION
            kind = _COLLECTION if collected else "tabular repair"
        with read_back(folder):
            _KINDS[kind][0].show(folder, screen)


def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The --out folder of any run.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What to write: FILE.parquet or FILE.csv.")],
    *,
    context: Annotated[
        str | None,
        typer.Option("--context", metavar="NAME", help="Which measurements, such as search. Default: the first made."),
    ] = None,
    parts: Annotated[
        bool, typer.Option("--parts", help="Add a column per raw part: confusion counts, scores of continuations.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Write over FILE if it exists.")] = False,
    damaged: Annotated[
        bool,
        typer.Option("--damaged", help="Read what is left of a damaged run: measurements whose checksums are right."),
    ] = False,
    common: CommonOptions,
) -> None:
    """Write what a run measured as a table for other programs: a row per mask.

    Example: `fairmend export repaired measured.parquet`
    """
    with opened(common) as screen:
        from fairmend.runs import Store
        from fairmend.runs.directories import RUN
        from fairmend.runs.export import export as write

        if not folder.is_dir():
            raise RunError(f"{folder} is not a folder: name the --out folder of a run")
        with closing(Store.open(folder / RUN, read_only=True, salvage=damaged)) as store:
            names = store.contexts()
            if not names:
                raise RunError(f"{folder} holds a run that has not measured anything yet: resume it first")
            chosen = names[0] if context is None else context
            count = write(store, chosen, file, parts=parts, overwrite=force)
        screen.document({"file": str(file), "context": chosen, "contexts": list(names), "measurements": count})
        screen.show(f"{count:,} measurements of {chosen!r} written to {file}.")
        if len(names) > 1 and context is None:
            screen.show(f"The run has more: --context {' | '.join(names)}")


def _header(folder: Path) -> dict[str, Any]:
    """The header of the run in a folder.

    Raises:
        RunError: there is none, or it is damaged or of a kind that no command goes on with.
    """
    from fairmend.runs import Store
    from fairmend.runs.directories import RUN

    if not folder.is_dir():
        raise RunError(f"{folder} is not a directory: name the --out folder of a repair")
    with closing(Store.open(folder / RUN, read_only=True)) as store:
        header = {**store.header, "request": store.request}
    kind = header.get("kind")
    if kind == SCORING:
        raise RunError(f"{folder} holds an unfinished scoring of heads: give its `fairmend lm score` command again")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise RunError(f"{folder} holds a run of another kind ({kind!r}): expected {', '.join(_KINDS)}")
    if not isinstance(header.get("request"), dict):
        raise RunError(f"{folder} does not say how its run was asked for: give the run's own command again")
    return header


def finished(folder: Path) -> tuple[Kind, dict[str, Any]]:
    """What a finished run left in a folder: of which kind, and its result.

    Raises:
        RunError: there is none, it is damaged, or the run is to be gone on with.
    """
    from fairmend.records import Kind, read

    kind, interrupted = _result(folder)
    if kind is None or interrupted:
        raise RunError(f"{folder} holds no finished run: name the --out folder of one, or fairmend resume it first")
    its = Kind(kind, None, _KINDS[kind][1])
    return its, read(folder / its.file, its)


def _result(folder: Path) -> tuple[str | None, bool]:
    """What kind of run left its result in a folder, and whether Ctrl-C ended it early; no kind where there is none.

    Raises:
        RunError: a result is damaged, or of nothing that fairmend of this version makes.
    """
    from fairmend.records import Kind, read

    for file in dict.fromkeys(file for _, file in _KINDS.values() if file):
        if os.path.lexists(folder / file):
            content = read(folder / file, *(Kind(name, None) for name, (_, its) in _KINDS.items() if its == file))
            outcome = content.get("outcome", content)
            return content["schema"].removeprefix("fairmend "), isinstance(outcome, dict) and bool(
                outcome.get("interrupted")
            )
    return None, False
