"""What `fairmend resume`, `show` and `export` do with the folder of a run, whatever kind it is."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

from fairmend.cli.display import opened
from fairmend.cli.language import front as language_front
from fairmend.cli.language import repair as language_repair
from fairmend.cli.language import studies as language_studies
from fairmend.cli.language import subsets as language_subsets
from fairmend.cli.language.runs import SCORING
from fairmend.cli.options import CommonOptions
from fairmend.cli.tabular import commands as tabular
from fairmend.cli.tabular import studies as tabular_studies
from fairmend.cli.trust import TrustOptions, read_back
from fairmend.errors import RunError

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


def resume(folder: Path, trust: TrustOptions, common: CommonOptions) -> None:
    """Go on with the run in a folder, or show it if it is finished; code is taken from the command line only."""
    with opened(common) as screen:
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


def show(folder: Path, common: CommonOptions) -> None:
    """Show what a run left in a folder, whether or not its store is still there."""
    with opened(common) as screen:
        from fairmend.records import RUN

        kind, _ = _result(folder)
        if kind is None:  # the reader of repairs says what is missing
            collected = (folder / RUN).is_file() and _header(folder)["kind"] == _COLLECTION
            kind = _COLLECTION if collected else "tabular repair"
        with read_back(folder):
            _KINDS[kind][0].show(folder, screen)


def export(
    folder: Path,
    file: Path,
    context: str | None,
    parts: bool,
    force: bool,
    damaged: bool,
    common: CommonOptions,
) -> None:
    """Write what a run measured as a table."""
    with opened(common) as screen:
        from fairmend.runs import Store
        from fairmend.runs.directories import RUN
        from fairmend.runs.export import export as write

        if not folder.is_dir():
            raise RunError(f"{folder} is not a directory: name the --out folder of a run")
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
