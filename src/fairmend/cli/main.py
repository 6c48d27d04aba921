"""The command `fairmend`. Nothing heavy is imported before a command runs, so that `--help` is quick."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fairmend import __version__
from fairmend.cli import doctor as installation
from fairmend.cli import runs
from fairmend.cli.language import commands as language
from fairmend.cli.options import CommonOptions, command
from fairmend.cli.streams import streams
from fairmend.cli.tabular import commands as tabular
from fairmend.cli.tabular import studies
from fairmend.cli.trust import TrustOptions

app = typer.Typer(
    name="fairmend",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["--help", "-h"]},
)
studies.register(tabular.app)
app.add_typer(tabular.app, name="tabular")
app.add_typer(language.app, name="lm")


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
    change), 130 after Ctrl-C, and 1 if its result could not be written to standard output or fairmend has a defect.
    `fairmend doctor` checks the installation, and prints what a report of a defect needs.
    """


@app.command(name="fetch")
@command
def fetch_command(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="adult, compas, german, bank or default; a preset's name fetches its table."
        ),
    ],
    *,
    common: CommonOptions,
) -> None:
    """Get a public data set into the cache, and print where it is.

    The download is checked against a pinned SHA-256; what is already there is not fetched again. The cache is the
    folder in the environment variable FAIRMEND_CACHE, or the user's cache folder. Presets fetch their data by
    themselves; this command is for doing it ahead, for example before going offline.

    Example: `fairmend fetch adult`
    """
    tabular.fetch(name, common)


@app.command()
@command
def resume(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The --out folder of a run that was stopped.")],
    *,
    trust: TrustOptions,
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
    runs.resume(directory, trust, common)


@app.command()
@command
def show(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The --out folder of a finished run.")],
    *,
    common: CommonOptions,
) -> None:
    """Show a saved repair or comparison again: its tables, or with --json what was saved.

    Example: `fairmend show repaired --json`
    """
    runs.show(directory, common)


@app.command()
@command
def export(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The --out folder of any run.")],
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
    runs.export(directory, file, context, parts, force, damaged, common)


@app.command()
@command
def doctor(*, common: CommonOptions) -> None:
    """Check this installation, and print what a report of a problem needs. Paste it as it is.

    Prints versions and whether they are supported, devices, the cache folder and threads; then tiny random networks are
    made and repaired in seconds: the compiled kernel must count as torch does, a language model must decode with its
    cache as in one pass, ignore padding, lose a head where its gate is shut, and be saved as it was measured. Nothing
    is fetched, and no path but that of the cache is shown.

    Exit code 1 if something is not as it should be; each line says what.

    Example: `fairmend doctor`
    """
    installation.doctor(common)


def main() -> None:
    """Run the command line. Errors of the user end with exit code 2, Ctrl-C with 130, defects with a traceback."""
    with streams():
        app()
