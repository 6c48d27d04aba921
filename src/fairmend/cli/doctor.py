"""What `fairmend doctor` does: looks at the installation, and shows what it saw."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from importlib import import_module
from itertools import groupby
from typing import TYPE_CHECKING

import typer

import fairmend
from fairmend.cli.display import opened
from fairmend.cli.options import CommonOptions
from fairmend.cli.streams import FAILED

if TYPE_CHECKING:
    from fairmend.health import Check


def doctor(*, common: CommonOptions) -> None:
    """Check this installation, and print what a report of a problem needs. Paste it as it is.

    Prints versions and whether they are supported, devices, the cache folder and threads; then tiny random networks are
    made and repaired in seconds: the compiled kernel must count as torch does, a language model must decode with its
    cache as in one pass, ignore padding, lose a head where its gate is shut, and be saved as it was measured. Nothing
    is fetched, and no path but that of the cache is shown.

    Exit code 1 if something is not as it should be; each line says what.

    Example: `fairmend doctor`
    """
    with opened(common) as screen:
        screen.steps.start(None, "looking at versions, devices, cache and threads, and checking tiny networks")
        checks = list(_checks(screen.threads, common.seed))
        screen.steps.close()
        failed = [each for each in checks if not each.ok]
        screen.document(
            {"fairmend": fairmend.__version__, "ok": not failed, "checks": [asdict(each) for each in checks]}
        )
        width = max(len(each.name) for each in checks)
        for section, members in groupby(checks, key=lambda each: each.section):
            screen.show(section)
            for each in members:
                seconds = f" ({each.seconds:.1f} s)" if section == "self-check" else ""
                screen.show(f"  {'ok' if each.ok else 'failed':6}  {each.name:{width}}  {each.found}{seconds}")
        screen.show("", f"{len(failed)} of {len(checks)} checks failed." if failed else f"All {len(checks)} checks ok.")
        if failed:
            raise typer.Exit(FAILED)


def _checks(threads: int, seed: int) -> Iterator[Check]:
    from fairmend.health import environment

    yield from environment(threads)
    for wing in ("tabular", "language"):
        yield from _self_check(f"fairmend.{wing}.health", seed)


def _self_check(module: str, seed: int) -> Iterator[Check]:
    """The checks of a wing; one that failed where the wing cannot be imported, whatever the reason."""
    from fairmend.health import check

    imported = check("self-check", f"import {module}", lambda: import_module(module).__name__)
    yield from import_module(module).self_check(seed) if imported.ok else [imported]
