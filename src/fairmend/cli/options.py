"""From settings to options: every option of the command line is read off a field that says all about it.

A command takes groups of options: a dataclass of `setting`s as a whole, or what was `Given` of some settings of the
library. Its `--help` shows what most people need, `--help-all` everything. Nothing heavy is imported here.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar, cast, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperCommand

from fairmend.errors import InputError
from fairmend.settings import Setting, amended, option_of, setting, settings_of

_ALL = "fairmend.help_all"
RARE = "rare"
"""Annotates an option of one command that is left out of the short help."""
_Value = TypeVar("_Value")
_Settings = TypeVar("_Settings")


@dataclass(frozen=True)
class Offer:
    """Some settings of a dataclass as options.

    Attributes:
        group: the dataclass.
        names: of its settings, see `settings_of`.
        panel: the heading that help shows them under.
        several: every option takes a list, separated by commas.
        basic: whether those that most people need are in the short help.
    """

    group: type
    names: tuple[str, ...]
    panel: str
    several: bool = False
    basic: bool = True

    def without(self, *names: str) -> Offer:
        """The same without some settings."""
        return replace(self, names=tuple(name for name in self.names if name not in names))

    def settings(self) -> dict[str, Setting]:
        """The settings that are offered, by name."""
        known = settings_of(self.group)
        return {name: replace(known[name], basic=known[name].basic and self.basic) for name in self.names}


def of(group: type, *names: str, panel: str, several: bool = False, basic: bool = True) -> Offer:
    """Offer settings of a dataclass as options: `Annotated[Given, of(RepairSettings, "keep", panel="Search")]`."""
    return Offer(group, names, panel, several, basic)


class Given(dict[str, Any]):
    """The settings that were given on the command line, by name, and nothing else: None was said, too."""

    known: dict[str, Setting]

    def __init__(self, known: dict[str, Setting] | None = None, **values: Any) -> None:
        super().__init__(values)
        self.known = known or {}

    def onto(self, settings: _Settings) -> _Settings:
        """Settings with what was given in their place.

        Raises:
            InputError: a value outside its limits, named as the option.
        """
        self.check()
        return amended(settings, self)

    def check(self) -> None:
        """Refuse values outside their limits.

        Raises:
            InputError: such a value, named as the option.
        """
        for name, value in self.items():
            self.known[name].check(option_of(name, self.known[name]), value)

    def levels(self) -> dict[str, list[Any]]:
        """The values of options that take lists.

        Raises:
            InputError: nothing, or a value that cannot be read or is outside its limits.
        """
        found: dict[str, list[Any]] = {}
        for name, text in self.items():
            known, option = self.known[name], option_of(name, self.known[name])
            found[name] = levels(option, str(text), reader(known))
            for value in found[name]:
                known.check(option, value)
        return found


@dataclass(frozen=True, kw_only=True)
class CommonOptions:
    """What every command takes."""

    PANEL: ClassVar[str] = "Everywhere"

    seed: int = setting(
        0,
        "Seed of the search and of the resampling behind intervals and p-values. Same seed, same result.",
        least=0,
        basic=True,
    )
    threads: int = setting(
        1,
        "Threads of the linear algebra, at most one per processor. One is fastest for small networks and on busy "
        "machines.",
        least=1,
        basic=True,
    )
    json: bool = setting(
        False,
        'Print one JSON document on standard output and nothing else there; an error is {"error": ...}.',
        basic=True,
    )
    quiet: bool = setting(False, "No progress and no notes, only the result.", basic=True)


@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """Who measures."""

    PANEL: ClassVar[str] = "Workers"

    workers: str = setting(
        "1",
        "Who measures, which the results do not depend on: N processes of this machine, each with its model on its own "
        "device (--device cuda spreads them over the GPUs); ray: actors on the Ray cluster at RAY_ADDRESS, or on one "
        "started here; ray://HOST:PORT: on that cluster. See docs/how-to/scale.md.",
        metavar="N|ray|ray://HOST:PORT",
        basic=True,
    )
    cpus_per_worker: float | None = setting(
        None, "Of Ray's: processors that each worker takes up.", kind=float, metavar="N", above=0, shown="1"
    )
    gpus_per_worker: float | None = setting(
        None,
        "Of Ray's: GPUs that each worker takes up; with 0.25, four share one.",
        kind=float,
        metavar="N",
        least=0,
        shown="1 for a language model on GPUs",
    )
    max_workers: int | None = setting(
        None, "Of Ray's: workers at most.", kind=int, least=1, shown="as many as the cluster has room for"
    )

    def check(self) -> None:
        """Refuse what cannot work.

        Raises:
            InputError: no such workers, a number outside its limits, or options of Ray's for others.
        """
        check_options(self)
        is_ray = self.workers == "ray" or self.workers.startswith("ray://")
        if not is_ray and not (self.workers.isascii() and self.workers.isdecimal() and int(self.workers) >= 1):
            raise InputError(f"--workers must be a number from 1 on, ray, or ray://HOST:PORT, got {self.workers!r}")
        for name in ("cpus_per_worker", "gpus_per_worker", "max_workers"):
            if getattr(self, name) is not None and not is_ray:
                raise InputError(f"--{name.replace('_', '-')} is for Ray: give it with --workers ray, or leave it out")


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


def levels(option: str, text: str, read: Callable[[str], _Value]) -> list[_Value]:
    """Read a list whose parts are separated by commas.

    Raises:
        InputError: nothing, or a part that cannot be read.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise InputError(f"{option} needs at least one value, got {text!r}: separate several by commas")
    try:
        return [read(part) for part in parts]
    except typer.BadParameter as error:
        raise InputError(f"{option} {text!r}: {error.message}; separate several values by commas") from error


def check_options(group: object) -> None:
    """Refuse options outside their limits, under their own names.

    Raises:
        InputError: such an option.
    """
    for name, known in settings_of(type(group)).items():
        known.check(option_of(name, known), getattr(group, name))


class Command(TyperCommand):
    """A command whose --help leaves out options that few people need; --help-all shows them too."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help; the types are those of whichever click typer has inside."""
        rest: frozenset[str] = getattr(self.callback, "rest", frozenset())
        shown = ctx.meta.get(_ALL, False)
        for each in self.params:
            if each.name in rest:
                cast(Any, each).hidden = not shown
        if rest and not shown:
            self.epilog = f"{len(rest)} more options: `{ctx.command_path} --help-all`"
        super().format_help(ctx, formatter)


def add(app: typer.Typer, *functions: Callable[..., None]) -> None:
    """Make commands of functions: every parameter that is a group of options becomes one option per setting."""
    for function in functions:
        app.command(cls=Command)(_grouped(function))


def _grouped(function: Callable[..., None]) -> Callable[..., None]:
    hints = get_type_hints(function, include_extras=True)
    groups: dict[str, Callable[[typer.Context, dict[str, Any]], Any]] = {}
    parameters: list[inspect.Parameter] = []
    spread: list[inspect.Parameter] = []
    rest: set[str] = set()
    for name, parameter in inspect.signature(function).parameters.items():
        hint = hints[name]
        if isinstance(hint, type) and is_dataclass(hint):
            groups[name] = functools.partial(_made, hint)
            options, few = _of_group(hint)
        elif get_origin(hint) is Annotated and get_args(hint)[0] is Given:
            offers: tuple[Offer, ...] = get_args(hint)[1:]
            groups[name] = functools.partial(_given, offers)
            options, few = _of_offers(offers)
        else:
            parameters.append(_keyword(name, hint, parameter.default))
            rest |= {name} if RARE in get_args(hint)[1:] else set()
            continue
        spread += options
        rest |= few

    def grouped(said: typer.Context, **given: Any) -> None:
        given.pop("help_all", None)
        made = {name: make(said, given) for name, make in groups.items()}
        function(**given, **made)

    parameters += [
        _keyword("said", typer.Context, inspect.Parameter.empty),
        *spread,
        _keyword("help_all", _HelpAll, False),
    ]
    functools.update_wrapper(grouped, function, assigned=("__module__", "__name__", "__doc__"), updated=())
    del grouped.__wrapped__  # type: ignore[attr-defined]  # typer would read the original's parameters
    grouped.rest = frozenset(rest)  # type: ignore[attr-defined]
    grouped.__annotations__ = {each.name: each.annotation for each in parameters} | {"return": None}
    grouped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return grouped


def _made(group: type, context: typer.Context, given: dict[str, Any]) -> Any:
    known = settings_of(group)
    places = {
        each.name: _place(each.name, known[each.name]) if each.name in known else each.name for each in fields(group)
    }
    return group(**{name: given.pop(place) for name, place in places.items()})


def _given(offers: Sequence[Offer], context: typer.Context, values: dict[str, Any]) -> Given:
    found = Given({name: known for offer in offers for name, known in offer.settings().items()})
    for name, known in found.known.items():
        value = values.pop(_place(name, known))
        source = context.get_parameter_source(_place(name, known))
        if source is not None and source.name == "COMMANDLINE":
            found[name] = value
    return found


@functools.cache  # half of the time of --help went into the same groups of many commands
def _of_group(group: type) -> tuple[tuple[inspect.Parameter, ...], frozenset[str]]:
    types = get_type_hints(group, include_extras=True)
    known = settings_of(group)
    panel = getattr(group, "PANEL", "")
    made = [
        _option(each.name, known[each.name], known[each.name].panel or panel)
        if each.name in known
        else _keyword(each.name, types[each.name], each.default)
        for each in fields(group)
    ]
    rest = [_place(name, each) for name, each in known.items() if not each.basic]
    return tuple(made), frozenset([*rest, *(name for name, hint in types.items() if RARE in get_args(hint)[1:])])


@functools.cache
def _of_offers(offers: tuple[Offer, ...]) -> tuple[tuple[inspect.Parameter, ...], frozenset[str]]:
    made = [
        _option(name, known, offer.panel, offer.several) for offer in offers for name, known in offer.settings().items()
    ]
    rest = [_place(name, known) for offer in offers for name, known in offer.settings().items() if not known.basic]
    return tuple(made), frozenset(rest)


def _option(name: str, known: Setting, panel: str, several: bool = False) -> inspect.Parameter:
    option = option_of(name, known)
    shape = f"{known.shape()}[,{known.shape()}]" if several else known.shape()
    plain = several or (known.kind in (bool, Path, str) and not known.none)
    default = None if several else known.default
    information = typer.Option(
        option,
        metavar=None if known.kind is bool else shape,
        parser=None if plain else reader(known),
        rich_help_panel=panel or None,
        help=known.help,
        show_default=False if known.kind is bool or several else known.default_in_words(),
    )
    kind = bool if known.kind is bool else (str if several else known.kind) | None if plain else Any
    return _keyword(_place(name, known), Annotated[kind, information], default)


def reader(known: Setting) -> Callable[[Any], Any]:
    """What reads the text of an option."""

    def read(text: Any) -> Any:
        if not isinstance(text, str):  # a default
            return text
        if known.none and text == known.none:
            return None
        if text == "auto" == known.default:
            return text
        return _READERS[known.kind](text)

    return read


_READERS: dict[type, Callable[[str], Any]] = {int: whole, float: real, str: str}


def _place(name: str, known: Setting) -> str:
    """The parameter of a command that takes an option: unique, as options are."""
    return option_of(name, known).partition("/")[0].strip("-").replace("-", "_")


def _show_all(context: typer.Context, wanted: bool) -> None:
    if wanted:
        context.meta[_ALL] = True
        typer.echo(context.get_help())
        raise typer.Exit


_HelpAll = Annotated[bool, typer.Option("--help-all", is_eager=True, callback=_show_all, help="Show every option.")]


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
