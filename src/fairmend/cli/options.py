"""The options that several commands share: each with its unit, default and what it is good for.

A command takes a group of options as one dataclass. Nothing heavy is imported here: `--help` must be quick.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

_SOURCE = "Model and data"
_OWN = "Your own table"
_SEARCH = "Search"
_LIMITS = "What a repair may do"
_COMMON = "Everywhere"


def whole(text: str) -> int:
    """Read a whole number; typer's own message does not say what it got."""
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a whole number") from None


def real(text: str) -> float:
    """Read a number."""
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a number such as 0.98") from None


PRESET_NAMES = "adult-sex, adult-race, compas-sex, compas-race, bank-age, default-sex, meps16-race, german-sex"
OBJECTIVE_NAMES = (
    "equalized_odds_difference, equal_opportunity_difference, demographic_parity_difference, equalized_odds_ratio, "
    "equal_opportunity_ratio, demographic_parity_ratio, worst_group_accuracy"
)


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """Where the network and the data come from."""

    preset: Annotated[
        str | None,
        typer.Option(
            "--preset",
            metavar="NAME",
            rich_help_panel=_SOURCE,
            help=f"A published benchmark: {PRESET_NAMES}. Brings its data (fetched once into the cache), encoding, "
            "groups and size limits; without --model also a small network of its published widths, which is trained "
            "here in seconds and kept in the cache.",
        ),
    ] = None
    model: Annotated[
        Path | None,
        typer.Option(
            "--model",
            metavar="FILE",
            rich_help_panel=_SOURCE,
            help="The trained network: a .safetensors of a plain MLP (NAME.weight and NAME.bias, layers in order) or "
            "an .onnx MLP. Pickles (.pt, .pkl) are refused.",
        ),
    ] = None
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="PATH",
            rich_help_panel=_SOURCE,
            help="The table: .csv, .tsv or .txt (also .gz), .parquet, or .npz with X and y. With --preset a file in "
            "one of its public layouts, or a folder that holds it; left out, it comes from the cache or is fetched.",
        ),
    ] = None
    activation: Annotated[
        str | None,
        typer.Option(
            "--activation",
            metavar="NAME[,NAME]",
            rich_help_panel=_SOURCE,
            help="Activation of the hidden layers of a .safetensors network whose file does not name it: relu, "
            "leaky_relu(0.2), gelu, silu, tanh, sigmoid, elu; one for all layers or one each. Default: relu, and "
            "the output says that it was assumed.",
        ),
    ] = None
    split_seed: Annotated[
        int,
        typer.Option(
            "--split-seed",
            metavar="N",
            parser=whole,
            rich_help_panel=_SOURCE,
            help="Seed of the random split into 60 % train, 20 % validation and 20 % test; also of the training of a "
            "preset's own network.",
        ),
    ] = 42
    label: Annotated[
        str | None,
        typer.Option("--label", metavar="COLUMN", rich_help_panel=_OWN, help="The column that the network predicts."),
    ] = None
    sensitive: Annotated[
        str | None,
        typer.Option(
            "--sensitive",
            metavar="COLUMN[,COLUMN]",
            rich_help_panel=_OWN,
            help="The column that makes the groups; several are crossed (sex,race gives sex=F & race=Black, ...). A "
            "name with a comma is taken as it is if a column has exactly that name; in a list put it in double quotes, "
            "as CSV does.",
        ),
    ] = None
    positive: Annotated[
        str | None,
        typer.Option(
            "--positive",
            metavar="VALUE",
            rich_help_panel=_OWN,
            help="The value of the label that is the positive class, class 1. Default: the larger of two numbers, or "
            "the one that plainly means yes; the output says which was taken.",
        ),
    ] = None
    split_column: Annotated[
        str | None,
        typer.Option(
            "--split-column",
            metavar="COLUMN",
            rich_help_panel=_OWN,
            help="A column with the values train, validation and test, instead of a random split.",
        ),
    ] = None
    features: Annotated[
        str | None,
        typer.Option(
            "--features",
            metavar="COLUMN[,COLUMN]",
            rich_help_panel=_OWN,
            help="The columns that the network takes, in its order. Default: all but the label and the split column, "
            "in the order of the file (of an .npz: the columns of X), without index levels and columns that have no "
            "name. Names with commas as for --sensitive.",
        ),
    ] = None
    drop_sensitive: Annotated[
        bool,
        typer.Option(
            "--drop-sensitive",
            rich_help_panel=_OWN,
            help="The network does not take the sensitive columns: leave them out of its inputs.",
        ),
    ] = False
    encode: Annotated[
        str,
        typer.Option(
            "--encode",
            metavar="none|standard",
            rich_help_panel=_OWN,
            help="none: every feature is the number it is, because a finished network expects ready inputs. standard: "
            "one-hot text (first level left out) and standardise numbers on the train split; right only if the "
            "network was trained on exactly that.",
        ),
    ] = "none"


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """How to repair: the fields of `RepairSettings` that the command line offers."""

    search: Annotated[
        str,
        typer.Option(
            "--search",
            metavar="NAME",
            rich_help_panel=_SEARCH,
            help="annealing (NeuFair's), random-walk, genetic (NSGA-II), exhaustive (small networks and size limits "
            "only), dice (the best single neuron) or random (uniform sampling).",
        ),
    ] = "annealing"
    states: Annotated[
        int | None,
        typer.Option(
            "--states",
            metavar="N",
            parser=whole,
            rich_help_panel=_SEARCH,
            help="Masks to measure. Default: 15000, or as many as fit into --seconds.",
        ),
    ] = None
    seconds: Annotated[
        float | None,
        typer.Option(
            "--seconds",
            metavar="S",
            parser=real,
            rich_help_panel=_SEARCH,
            help="Time limit of the search in seconds. Without --states it is turned into a number of states once, "
            "from the measured speed. Default: no limit.",
        ),
    ] = None
    restarts: Annotated[
        int,
        typer.Option(
            "--restarts",
            metavar="N",
            parser=whole,
            rich_help_panel=_SEARCH,
            help="Times that annealing or the random walk starts over within its states.",
        ),
    ] = 1
    chains: Annotated[
        int,
        typer.Option(
            "--chains",
            metavar="N",
            parser=whole,
            rich_help_panel=_SEARCH,
            help="Chains that annealing or the random walk runs side by side, sharing its states.",
        ),
    ] = 1
    search_on: Annotated[
        str,
        typer.Option(
            "--search-on",
            metavar="train+validation|validation",
            rich_help_panel=_SEARCH,
            help="Rows that the search sees. More rows generalise better; validation is NeuFair as published. The "
            "test split is never searched on.",
        ),
    ] = "train+validation"
    objective: Annotated[
        str,
        typer.Option(
            "--objective",
            metavar="NAME",
            rich_help_panel=_LIMITS,
            help=f"What to make fair, by fairlearn's names: {OBJECTIVE_NAMES}.",
        ),
    ] = "equalized_odds_difference"
    utility: Annotated[
        str,
        typer.Option(
            "--utility",
            metavar="NAME",
            rich_help_panel=_LIMITS,
            help="What to keep: f1, accuracy, balanced_accuracy or log_loss.",
        ),
    ] = "f1"
    keep: Annotated[
        float,
        typer.Option(
            "--keep",
            metavar="SHARE",
            parser=real,
            rich_help_panel=_LIMITS,
            help="Least share of the original utility on the search rows, above 0 up to 1: 0.98 gives up at most 2 %.",
        ),
    ] = 0.98
    penalty: Annotated[
        float,
        typer.Option(
            "--penalty",
            metavar="P",
            parser=real,
            rich_help_panel=_LIMITS,
            help="What falling below that floor costs while searching, in multiples of the original unfairness.",
        ),
    ] = 3.0
    min_drop: Annotated[
        int | None,
        typer.Option(
            "--min-drop",
            metavar="N",
            parser=whole,
            rich_help_panel=_LIMITS,
            help="Fewest neurons to drop (dropping none at all always stays a candidate). Default: the preset's "
            "published limit, else 0; 0 for dice, which drops one.",
        ),
    ] = None
    max_drop: Annotated[
        int | None,
        typer.Option(
            "--max-drop",
            metavar="N",
            parser=whole,
            rich_help_panel=_LIMITS,
            help="Most neurons to drop. Default: the preset's published limit, else three eighths of all.",
        ),
    ] = None
    drop: Annotated[
        str,
        typer.Option(
            "--drop",
            metavar="output|weights",
            rich_help_panel=_LIMITS,
            help="What a dropped neuron emits. output: 0, as dropout does. weights: its incoming weights are zeroed "
            "and its bias kept, as in the published NeuFair artefact.",
        ),
    ] = "output"
    threshold: Annotated[
        str,
        typer.Option(
            "--threshold",
            metavar="joint|fixed",
            rich_help_panel=_LIMITS,
            help="joint: the search also shifts everybody's decision threshold (saved in the output bias). fixed: "
            "the threshold stays, NeuFair as published.",
        ),
    ] = "joint"


@dataclass(frozen=True, kw_only=True)
class CommonOptions:
    """What every command takes."""

    seed: Annotated[
        int,
        typer.Option(
            "--seed",
            metavar="N",
            parser=whole,
            rich_help_panel=_COMMON,
            help="Seed of the search and of the resampling behind intervals and p-values. Same seed, same result.",
        ),
    ] = 0
    threads: Annotated[
        int,
        typer.Option(
            "--threads",
            metavar="N",
            parser=whole,
            rich_help_panel=_COMMON,
            help="Threads of the linear algebra, at most one per processor. One is fastest for small networks and on "
            "busy machines.",
        ),
    ] = 1
    json: Annotated[
        bool,
        typer.Option(
            "--json",
            rich_help_panel=_COMMON,
            help='Print one JSON document on standard output and nothing else there; an error is {"error": ...}.',
        ),
    ] = False
    quiet: Annotated[
        bool, typer.Option("--quiet", rich_help_panel=_COMMON, help="No progress and no notes, only the result.")
    ] = False


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Let a function take groups of options: every parameter that is a dataclass becomes one option per field."""
    hints = get_type_hints(function, include_extras=True)
    groups = {name: hint for name, hint in hints.items() if isinstance(hint, type) and is_dataclass(hint)}
    parameters: list[inspect.Parameter] = []
    spread: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(function).parameters.items():
        if name in groups:
            spread += _keywords(groups[name])
        else:
            parameters.append(_keyword(name, hints[name], parameter.default))

    @functools.wraps(function)
    def grouped(**given: Any) -> None:
        made = {
            name: group(**{each.name: given.pop(each.name) for each in fields(group)}) for name, group in groups.items()
        }
        function(**given, **made)

    parameters += spread
    del grouped.__wrapped__  # typer would read the original's parameters
    grouped.__annotations__ = {each.name: each.annotation for each in parameters} | {"return": None}
    grouped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return grouped


@functools.cache  # half of the time of --help went into the same groups of many commands
def _keywords(group: type) -> tuple[inspect.Parameter, ...]:
    types = get_type_hints(group, include_extras=True)
    return tuple(_keyword(each.name, types[each.name], each.default) for each in fields(group))


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
