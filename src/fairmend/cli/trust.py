"""What a run's folder may say, and what it may not: code and trust are given again by the person at the command line.

A folder may come from somebody else. Its record of the options that began the run names files and settings, which are
checked here before they are used. A function to call, and the permission to run a checkpoint's own code, are only ever
taken from the command line, and compared with the record.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from fairmend import __version__
from fairmend.cli.options import Given, Offer
from fairmend.errors import FairmendError, RunError

OTHER_VERSION = "resume it with the version that started it, or with the command that started it"
_Stored = TypeVar("_Stored")
_PANEL = "Trusted again"
_MODEL_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", re.ASCII)  # OWNER/NAME


TrustRemoteCode = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code",
        rich_help_panel=_PANEL,
        help="The run was begun with it: run the Python code that comes with the checkpoint again.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class TrustOptions:
    """What is not taken from a run's folder."""

    trust_remote_code: TrustRemoteCode = False
    scorer: Annotated[
        str | None,
        typer.Option(
            "--scorer",
            metavar="python:MODULE:FUNCTION",
            rich_help_panel=_PANEL,
            help="The run's scorer, if it is a function of your own; its module is looked for where you are now.",
        ),
    ] = None
    objective: Annotated[
        list[str] | None,
        typer.Option(
            "--objective",
            metavar="python:MODULE:FUNCTION",
            rich_help_panel=_PANEL,
            help="The run's further objectives, each as it was given.",
        ),
    ] = None


def require_trust(trust: TrustOptions, request: Mapping[str, Any], folder: Path) -> None:
    """Refuse to run code that the command line does not name, or names otherwise than the run.

    Args:
        trust: what the command line says.
        request: the run's record of its options.
        folder: of the run.

    Raises:
        RunError: the run needs code that was not given, or other code than was given; the message says what to give.
    """
    scorer, objectives = request.get("scorer"), request.get("objectives") or []
    if not isinstance(objectives, list) or not all(isinstance(each, str) for each in objectives):
        raise RunError(f"{folder} is damaged: its objectives are {objectives!r}. {OTHER_VERSION}")
    trusts = request.get("trust_remote_code", False) is not False
    own = scorer if isinstance(scorer, str) and scorer.startswith("python:") else None
    if (trust.trust_remote_code, trust.objective or []) == (trusts, objectives) and trust.scorer in (own, scorer):
        if own is not None or objectives:
            _require_elsewhere(folder)
        return
    words, needed = _words(request), resume_command(folder, request)
    if not words:
        raise RunError(
            f"the run in {folder} was begun without code of your own and without trust in a checkpoint's: leave out "
            f"--trust-remote-code, --scorer and --objective: {needed}"
        )
    raise RunError(
        f"the run in {folder} was begun with {shlex.join(words)}. Code and trust are never taken from a run's folder, "
        "which may come from somebody else: if you know and trust what it names, go on, from the folder where the "
        f"module is, with: {needed}"
    )


def resume_command(folder: Path, request: Mapping[str, Any]) -> str:
    """The command that goes on with a run, code and trust included.

    Args:
        folder: of the run.
        request: its record of its options.
    """
    return shlex.join(["fairmend", "resume", str(folder), *_words(request)])


def _words(request: Mapping[str, Any]) -> list[str]:
    scorer = str(request.get("scorer"))
    words = ["--scorer", scorer] if scorer.startswith("python:") else []
    words += [word for objective in request.get("objectives") or () for word in ("--objective", objective)]
    return words + ["--trust-remote-code"] * (request.get("trust_remote_code", False) is not False)


def require_same_trust(given: bool, request: Mapping[str, Any], folder: Path) -> None:
    """The same where only a model is read.

    Raises:
        RunError: the folder's repair trusted the checkpoint's code and the command line does not, or the other way.
    """
    trusts = request.get("trust_remote_code", False) is not False
    if given != trusts:
        raise RunError(
            f"the repair in {folder} was begun {'with' if trusts else 'without'} --trust-remote-code, which is never "
            f"taken from a folder: {'add it, if you trust the code of its model' if trusts else 'leave it out'}"
        )


def _require_elsewhere(folder: Path) -> None:
    """Modules are looked for in the working directory, which must not be the run's."""
    here = Path.cwd()
    if here == folder.resolve() or folder.resolve() in here.parents:
        raise RunError(
            f"you are inside the run's folder {folder}, where a module of your own is not looked for: go to the folder "
            "where it is, and give the command again there"
        )


def require_paths(request: Mapping[str, Any], names: Sequence[str]) -> None:
    """Refuse options that name a file from wherever the command happens to be given.

    Args:
        request: a run's record of its options.
        names: those of its options that are files or folders.

    Raises:
        RunError: one is not an absolute path.
    """
    for name in names:
        value = request.get(name)
        if value is not None and not (isinstance(value, str) and Path(value).is_absolute()):
            raise _relative(name, value)


def require_sources(request: Mapping[str, Any]) -> None:
    """The same for a model, a scorer and a text, which can be something else than a path.

    Raises:
        RunError: one could be a file below the working directory.
    """
    for name in ("model", "scorer", "text"):
        value = request.get(name)
        if value is None:
            continue
        if not isinstance(value, str):
            raise _relative(name, value)
        scheme, colon, rest = value.partition(":")
        path = rest if colon and scheme in ("detoxify", "wikitext2") else value
        if Path(path).is_absolute() or (name == "scorer" and scheme == "python"):
            continue
        is_id = name != "text" and path == value and _MODEL_ID.fullmatch(value) is not None
        if not is_id or Path(value).exists():
            raise _relative(name, value)


def _relative(name: str, value: object) -> RunError:
    return RunError(
        f"the run's record names the {name} {value!r}, which could be another file in every folder: fairmend records "
        "absolute paths, so this record was changed or damaged. Start the run again with its own command and another "
        "--out"
    )


@contextmanager
def read_back(folder: Path) -> Iterator[None]:
    """Say that a saved result does not hold what one holds, where it is only read and shown.

    Raises:
        RunError: an entry is missing, or of another type.
    """
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, FairmendError):
            raise
        raise RunError(
            f"the result in {folder} does not hold what one holds ({type(error).__name__}: {error}): it was changed "
            "or damaged. Restore it from a copy, or repair again with another --out"
        ) from error


def recalled(values: Any, *offers: Offer) -> Given:
    """The settings that were given when a run was begun, from its record.

    Args:
        values: of the record.
        offers: the settings that the command takes.

    Raises:
        RunError: names that this version does not have, or no record of settings.
    """
    known = {name: each for offer in offers for name, each in offer.settings().items()}
    if not isinstance(values, Mapping) or not set(values) <= set(known):
        raise _unreadable(f"it gives {values!r}")
    return Given(known, **values)


def stored(read: Callable[[], _Stored]) -> _Stored:
    """A dataclass of options or settings read from a run's folder, its values of the types that they must have.

    Raises:
        RunError: names or values that this version does not have.
    """
    from fairmend.records import built

    try:
        given: Any = read()
        found: _Stored = built(asdict(given), type(given))
        return found
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        what = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise _unreadable(what) from error


def _unreadable(what: str) -> RunError:
    return RunError(
        f"the run's record of its options and settings cannot be read by this version of fairmend ({__version__}; "
        f"{what}): {OTHER_VERSION}"
    )
