"""What a command says, and where: results on standard output, progress, notes and errors on standard error."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from fairmend.cli.entry import at_work
from fairmend.cli.options import CommonOptions
from fairmend.cli.progress import Steps
from fairmend.errors import FairmendError, InputError

if TYPE_CHECKING:
    from rich.console import RenderableType

USAGE_ERROR = 2
INTERRUPTED = 130
_PIPED_WIDTH = 140  # of tables that go to a file or another program
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
)


class Interrupted(Exception):
    """Ctrl-C, after everything that can be saved was saved and said. The command ends with exit code 130."""


class Screen:
    """Standard output and standard error of one command.

    Args:
        as_json: standard output is for one JSON document.
        quiet: no progress and no notes.
        threads: threads asked for.

    Attributes:
        steps: shows long steps; pass it as `progress` to a search.
        threads: threads to use, at most one per processor: more would wait for each other and be far slower.
    """

    def __init__(self, as_json: bool = False, quiet: bool = False, threads: int = 1) -> None:
        from rich.console import Console

        self.as_json = as_json
        self.quiet = quiet
        self.threads = min(threads, os.cpu_count() or 1)
        width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else _PIPED_WIDTH
        self._out = Console(width=width, highlight=False, markup=False)
        self._err = Console(stderr=True, highlight=False, markup=False)
        self.steps = Steps(self._err, quiet)

    def note(self, text: str) -> None:
        """Say something that the result can be read without, on standard error."""
        if not self.quiet:
            self._err.print(text, style="dim", soft_wrap=True)

    def warn(self, text: str) -> None:
        """Say something on standard error that a person must not miss, even with --quiet."""
        self._err.print(text, style="bold yellow", soft_wrap=True)

    def show(self, *parts: RenderableType) -> None:
        """Print a result for people: texts and tables. Nothing with --json."""
        if not self.as_json:
            for part in parts:
                self._out.print(part, soft_wrap=isinstance(part, str))

    def document(self, payload: Mapping[str, Any]) -> None:
        """Print the result as the one JSON document. Nothing without --json."""
        if self.as_json:
            sys.stdout.write(json.dumps(payload, indent=2, allow_nan=False) + "\n")
            sys.stdout.flush()

    def error(self, error: FairmendError) -> None:
        """Print an error: its message for people, and with --json also {"error": {"kind", "message"}}."""
        self.steps.close()
        self._err.print("Error: ", style="bold red", end="")
        self._err.print(str(error), soft_wrap=True)
        self.document({"error": {"kind": type(error).__name__, "message": str(error)}})


@contextmanager
def opened(common: CommonOptions) -> Iterator[Screen]:
    """Run the body of a command: threads are set before it, errors and Ctrl-C become exit codes after it.

    A `FairmendError` becomes one message and exit code 2, Ctrl-C exit code 130. Anything else is a defect of
    fairmend and keeps its traceback.
    """
    screen = Screen(common.json, common.quiet, common.threads)
    try:
        at_work()
        _require(common)
        if screen.threads < common.threads:
            screen.note(f"Note: --threads {common.threads} is more than the processors here: {screen.threads} are used")
        _set_threads(screen.threads)
        yield screen
    except Interrupted:
        raise typer.Exit(INTERRUPTED) from None
    except KeyboardInterrupt:
        screen.warn("Stopped by Ctrl-C before there was anything to save.")
        raise typer.Exit(INTERRUPTED) from None
    except FairmendError as error:
        screen.error(error)
        raise typer.Exit(USAGE_ERROR) from None
    finally:
        screen.steps.close()


def _require(common: CommonOptions) -> None:
    if common.threads < 1:
        raise InputError(f"--threads must be at least 1, got {common.threads}")
    if common.seed < 0:
        raise InputError(f"--seed must be at least 0, got {common.seed}")


def _set_threads(threads: int) -> None:
    """Set the threads of libraries that are still to be imported, and torch's, which can be set later too."""
    if "numpy" not in sys.modules:
        os.environ.update(dict.fromkeys(_THREAD_VARIABLES, str(threads)))
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(threads)
