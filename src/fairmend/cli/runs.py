"""What `fairmend resume`, `show` and `export` do with the folder of a run, whatever kind it is."""

from __future__ import annotations

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
from fairmend.files import read_json

_COLLECTION = "language collection"
_KINDS: dict[str, ModuleType] = {
    "tabular repair": tabular,
    "language repair": language_repair,
    "language comparison": language_studies,
    "language comparison at equal cost": language_studies,
    _COLLECTION: language_subsets,
    "language sweep": language_studies,
    "tabular compare": tabular_studies,
    "tabular reproduce": tabular_studies,
    "tabular sweep": tabular_studies,
}
_SHOWN: dict[str, ModuleType] = {**_KINDS, "language front point": language_front}
_RESULTS = ("result.json", "compare.json", "sweep.json", "reproduce.json", "point.json")


def resume(folder: Path, trust: TrustOptions, common: CommonOptions) -> None:
    """Go on with the run in a folder, or show it if it is finished; code is taken from the command line only."""
    with opened(common) as screen:
        header = _header(folder)
        _KINDS[header["kind"]].resume(folder, header, trust, screen)


def show(folder: Path, common: CommonOptions) -> None:
    """Show what a run left in a folder, whether or not its store is still there."""
    with opened(common) as screen:
        kind = _finished_kind(folder) or _collection(folder)
        with read_back(folder):
            _SHOWN.get(kind, tabular).show(folder, screen)


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
        header = dict(store.header)
    kind = header.get("kind")
    if kind == SCORING:
        raise RunError(f"{folder} holds an unfinished scoring of heads: give its `fairmend lm score` command again")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise RunError(f"{folder} holds a run of another kind ({kind!r}): expected {', '.join(_KINDS)}")
    if not isinstance(header.get("request"), dict):
        raise RunError(f"{folder} does not say how its run was asked for: give the run's own command again")
    return header


def _collection(folder: Path) -> str:
    """The kind of a run that has no result but its store; "" where there is none."""
    from fairmend.runs.directories import RUN

    return _COLLECTION if (folder / RUN).is_file() and _header(folder)["kind"] == _COLLECTION else ""


def _finished_kind(folder: Path) -> str:
    """What kind of run left its result in a folder; "" where nothing can be read, which its reader then explains."""
    for name in _RESULTS:
        try:
            content = read_json(folder / name)
            schema = content["schema"] if "schema" in content else content["kind"]  # of a study of fairmend 0.1.0
        except (OSError, ValueError, KeyError, TypeError, RunError):
            continue
        return str(schema).removeprefix("fairmend ")
    return ""
