"""The folder of a command for language models: begun or gone on with, and kept when Ctrl-C ends it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairmend.cli.display import Interrupted, Screen
from fairmend.cli.trust import resume_command
from fairmend.errors import InputError

if TYPE_CHECKING:
    from fairmend.language.repair.settings import RepairSettings
    from fairmend.language.scores.head_scores import HeadScores
    from fairmend.runs import Store
    from fairmend.runs.context import Context

SCORING = "head scores"
"""The kind of run that scores heads. Its folder is gone once the scores are there."""


@contextmanager
def language_run(out: Path, begin: Callable[[], Store], screen: Screen, again: str) -> Iterator[Store]:
    """The store of a run in a folder, open while the body works on it.

    Args:
        out: the folder; it is removed again if the body finds that its input cannot work before anything is measured.
        begin: starts the run there, or opens it.
        screen: where it is said how to go on after Ctrl-C.
        again: how to go on, in words.

    Raises:
        Interrupted: Ctrl-C.
    """
    from fairmend.runs.directories import tidy

    with tidy(out):
        try:
            with closing(begin()) as store:
                yield store
        except KeyboardInterrupt:
            screen.warn(f"Stopped by Ctrl-C. Everything measured so far is kept in {out}; {again}")
            raise Interrupted from None


def go_on(out: Path, request: Mapping[str, Any]) -> str:
    """How to go on with the run in a folder that was asked for so, in words."""
    return f"go on with: {resume_command(out, request)}"


def command_line() -> str:
    """The command as it was given, for the record."""
    return shlex.join(["fairmend", *sys.argv[1:]])


def read_scores(path: Path | str | None) -> HeadScores | None:
    """The head scores in a file, if one is named.

    Raises:
        DataError: it is missing, or no such table.
    """
    if path is None:
        return None
    from fairmend.language.scores.head_scores import HeadScores

    return HeadScores.read(path)


@contextmanager
def read_collection(folder: str | None, settings: RepairSettings) -> Iterator[Context | None]:
    """The measured subsets in a folder, if one is named.

    Raises:
        InputError: a method that does not learn from measured subsets.
        RunError: there are none.
    """
    if folder is None:
        yield None
        return
    from fairmend.language.repair.subset_search import CONTEXT
    from fairmend.runs import Store
    from fairmend.runs.directories import RUN

    if settings.method not in ("attention-pruning", "active"):
        raise InputError(
            f"--from is for the methods attention-pruning and active, which learn from measured subsets; "
            f"--method is {settings.method!r}"
        )
    with closing(Store.open(Path(folder) / RUN, read_only=True)) as stored:
        yield stored.context(CONTEXT)
