"""The command `fairmend`: all commands in the order of its help. Nothing heavy is imported before one of them runs."""

from __future__ import annotations

from typing import Annotated

import typer

from fairmend import __version__
from fairmend.cli import runs
from fairmend.cli.doctor import doctor
from fairmend.cli.language import commands as language
from fairmend.cli.language.front import pick
from fairmend.cli.language.repair import repair
from fairmend.cli.language.studies import compare, sweep
from fairmend.cli.language.subsets import collect, fit
from fairmend.cli.options import add
from fairmend.cli.streams import streams
from fairmend.cli.tabular import commands as tabular
from fairmend.cli.tabular import studies
from fairmend.cli.tracking import log

app = typer.Typer(
    name="fairmend",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["--help", "-h"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fairmend {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Repair networks that treat groups of people unequally, by switching off a few of their parts.

    No retraining, no change to the data, and no sensitive attribute at prediction time.

    Start with a published benchmark: `fairmend tabular audit --preset adult-sex` says whether there is
    anything to repair, `fairmend tabular repair --preset adult-sex --out repaired` repairs it. Language models have
    commands of their own: `fairmend lm --help`.

    Every command ends with exit code 0 if it did its work, 2 if its input cannot work (the message says what to
    change), 130 after Ctrl-C, and 1 if an audit found more than --fail-above allows, if its result could not be
    written to standard output, or if fairmend has a defect. `fairmend doctor` checks the installation, and prints
    what a report of a defect needs.
    """


def _group(name: str, help: str) -> typer.Typer:
    group = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help=help)
    app.add_typer(group, name=name)
    return group


add(app, tabular.fetch, runs.resume, runs.show, runs.export, log, doctor)
add(
    _group("tabular", "Tabular networks: find the neurons to drop so that groups are treated more equally."),
    *(tabular.audit, tabular.repair, studies.compare, studies.reproduce, studies.sweep),
)
add(
    _group("lm", "Language models: find the attention heads to drop so that continuations about all groups are alike."),
    *(language.audit, language.score, repair, pick, compare, collect, fit, sweep, language.diff, language.apply),
)


def main() -> None:
    """Run the command line. Errors of the user end with exit code 2, Ctrl-C with 130, defects with a traceback."""
    with streams():
        app()
