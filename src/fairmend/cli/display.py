"""What a command says, and where: results on standard output, progress, notes and errors on standard error."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from fairmend.cli.options import CommonOptions, WorkerOptions, check_options
from fairmend.cli.progress import Steps
from fairmend.cli.signals import INTERRUPTED, at_work
from fairmend.cli.streams import DEFECT, FAILED, abandon_output
from fairmend.errors import FairmendError, InputError, RunError
from fairmend.threads import THREAD_VARIABLES

if TYPE_CHECKING:
    from rich.console import RenderableType

    from fairmend.runs.workers import Workers

USAGE_ERROR = 2
UNREAD = 141  # what a shell reports of a program whose reader has gone
# fmt: off
_REFUSALS = (
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE, errno.ENFILE,
    errno.ENAMETOOLONG, errno.ELOOP,
)
# fmt: on
_PIPED_WIDTH = 140  # of tables that go to a file or another program


class Interrupted(Exception):
    """Ctrl-C, after everything that can be saved was saved and said. The command ends with exit code 130."""


class Unheard(Exception):
    """Standard output cannot be written. The command ends with exit code 141 if its reader has gone, else 1."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(cause.strerror or str(cause))
        self.code = UNREAD if isinstance(cause, BrokenPipeError) else FAILED


class Screen:
    """Standard output and standard error of one command.

    Args:
        as_json: standard output is for one JSON document.
        quiet: no progress and no notes.
        threads: threads asked for.
        asked: who is to measure.

    Attributes:
        steps: shows long steps; pass it as `progress` to a search.
        threads: threads to use, at most one per processor: more would wait for each other and be far slower.
        on_gpus: whether the model computes on a GPU, so that workers need one.
    """

    def __init__(
        self, as_json: bool = False, quiet: bool = False, threads: int = 1, asked: WorkerOptions | None = None
    ) -> None:
        from fairmend.cli.console import PlainConsole

        self.as_json = as_json
        self.quiet = quiet
        self.threads = min(threads, os.cpu_count() or 1)
        self.on_gpus = False
        self._asked = asked or WorkerOptions()
        self._workers: Workers | None = None
        width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else _PIPED_WIDTH
        self._out = PlainConsole(width=width)
        self._err = PlainConsole(stderr=True)
        self.steps = Steps(self._err, quiet)

    @property
    def workers(self) -> Workers:
        """Who measures; started when first asked for.

        Raises:
            InputError, RunError: see `open_workers`.
        """
        if self._workers is None:
            from fairmend.runs.workers.opening import open_workers

            asked = self._asked
            gpus = asked.gpus_per_worker
            self._workers = open_workers(
                asked.workers,
                cpus=asked.cpus_per_worker or 1.0,
                gpus=gpus if gpus is not None or self.on_gpus else 0.0,
                most=asked.max_workers,
                threads=self.threads,
                say=lambda note: self.note(f"Note: {note}"),
            )
        return self._workers

    def close(self) -> None:
        """End the display and the workers, and say what each of them did."""
        self.steps.close()
        if self._workers is not None:
            from fairmend.runs.workers.opening import throughput_in_words

            said = throughput_in_words(self._workers.throughput())
            if said:
                self.note(said)
            self._workers.close()

    def note(self, text: str) -> None:
        """Say something that the result can be read without, on standard error."""
        if not self.quiet:
            self._err.print(text, style="dim", soft_wrap=True)

    def warn(self, text: str) -> None:
        """Say something on standard error that a person must not miss, even with --quiet."""
        self._err.print(text, style="bold yellow", soft_wrap=True)

    def show(self, *parts: RenderableType) -> None:
        """Print a result for people: texts of one line each, and tables. Nothing with --json."""
        if not self.as_json:
            with _heard():
                for part in parts:
                    self._out.print(part, soft_wrap=isinstance(part, str))

    def document(self, payload: Mapping[str, Any]) -> None:
        """Print the result as the one JSON document. Nothing without --json."""
        if self.as_json:
            if self._workers is not None and not self._workers.is_here and "error" not in payload:
                done = [asdict(each) for each in self._workers.throughput()]
                payload = {**payload, "workers": {"done": done, "notes": self._workers.notes}}
            with _heard():
                sys.stdout.write(json.dumps(payload, indent=2, allow_nan=False) + "\n")
                sys.stdout.flush()

    def line(self, payload: Mapping[str, Any]) -> None:
        """Print one of many results as a JSON document of one line. Nothing without --json."""
        if self.as_json:
            with _heard():
                sys.stdout.write(json.dumps(payload, allow_nan=False) + "\n")
                sys.stdout.flush()

    def ask(self, text: str) -> None:
        """Say that input is awaited, on standard error."""
        self._err.print(text, end="")

    def error(self, error: FairmendError) -> None:
        """Print an error: its message for people, and with --json also {"error": {"kind", "message"}}."""
        self.steps.close()
        self._err.print("Error: ", style="bold red", end="")
        self._err.print(str(error), soft_wrap=True)
        self.document({"error": {"kind": type(error).__name__, "message": str(error)}})


@contextmanager
def opened(common: CommonOptions, asked: WorkerOptions | None = None) -> Iterator[Screen]:
    """Run the body of a command: threads are set before it, errors and Ctrl-C become exit codes after it.

    A `FairmendError` becomes one message and exit code 2, Ctrl-C exit code 130. So do what no command can foresee: a
    disk that is full or read-only, too little memory, a file that is nested without end. Anything else is a defect of
    fairmend and keeps its traceback, which says so.
    """
    screen = Screen(common.json, common.quiet, common.threads, asked)
    try:
        with _answered(screen):
            at_work()
            check_options(common)
            if asked is not None:
                asked.check()
            if screen.threads < common.threads:
                screen.note(
                    f"Note: --threads {common.threads} is more than the processors here: {screen.threads} are used"
                )
            _set_threads(screen.threads)
            yield screen
    except Unheard as unheard:
        abandon_output()
        if unheard.code != UNREAD:
            screen.warn(f"Error: standard output cannot be written ({unheard}). What was saved is whole.")
        raise typer.Exit(unheard.code) from None
    finally:
        screen.close()


@contextmanager
def _answered(screen: Screen) -> Iterator[None]:
    """Turn what ends a command into what is said and its exit code."""
    try:
        yield
    except Interrupted:
        raise typer.Exit(INTERRUPTED) from None
    except KeyboardInterrupt:
        screen.warn("Stopped by Ctrl-C before there was anything to save.")
        raise typer.Exit(INTERRUPTED) from None
    except (Unheard, typer.Exit, typer.Abort, typer.BadParameter):
        raise
    except Exception as error:
        refusal = error if isinstance(error, FairmendError) else _refusal(error)
        if refusal is None:
            error.add_note(DEFECT)
            raise
        screen.error(refusal)
        raise typer.Exit(USAGE_ERROR) from None


def _refusal(error: Exception) -> FairmendError | None:
    """What the machine could not do, in words; None for a defect."""
    if isinstance(error, RecursionError):
        return InputError(
            f"a file that was given is nested too deeply to be read ({error}): no model, table or result is. If all "
            "are what they should be, please report this with what `fairmend doctor` prints"
        )
    if isinstance(error, MemoryError):
        wanted = f" ({error})" if str(error) else ""
        return RunError(
            f"there is not enough memory{wanted}: close other programs, or give less data, smaller batches or fewer "
            "workers. A damaged file may also claim to hold more than it does. What a run had measured is in its folder"
        )
    if isinstance(error, UnicodeEncodeError) and error.reason == "surrogates not allowed":
        return InputError(
            f"a library cannot take the name {error.object!r}, which has bytes that are not UTF-8: rename the file or "
            "folder"
        )
    if isinstance(error, OSError) and error.errno in _REFUSALS:
        where = repr(str(error.filename)) if error.filename is not None else "a file"
        return RunError(
            f"{where} cannot be read or written: {error.strerror}. Make room or give permission there, or name another "
            "folder; what a run had measured is in its folder"
        )
    return None


@contextmanager
def _heard() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unheard(error) from error


def _set_threads(threads: int) -> None:
    """Set the threads of libraries that are still to be imported, and torch's, which can be set later too."""
    if "numpy" not in sys.modules:
        os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(threads)
