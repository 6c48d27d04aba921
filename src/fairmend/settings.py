"""A setting stated once: default, limits, help and option stand in the metadata of its dataclass's field.

Checks, published values, estimators, options of the command line and their help are derived from there. `None` always
means "no limit", "auto" that fairmend chooses. Nothing heavy is imported here: `--help` must be quick.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, TypeVar, cast

from fairmend.errors import InputError

Auto = Literal["auto"]

_LONG = 30  # characters of choices that are shown one by one
_OWN = object()  # there is no published value but the default
_Class = TypeVar("_Class", bound=type)
_Settings = TypeVar("_Settings")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is known about one setting.

    Attributes:
        default: taken where nothing else is said.
        help: what it is good for, with its unit; other settings are named as the command line does.
        kind: of its values: int, float, str, bool or Path.
        option: its name on the command line; "" where it is not offered, None for the name of the field.
        metavar: how help shows the value.
        least, most, above: limits; `above` itself is not allowed.
        choices: the names allowed.
        none: the word that says None on the command line; "" where None cannot be said.
        reason: what a refusal ends with, such as what an allowed value does.
        published: the value of the published protocol.
        shown: the default in words, where it depends on others.
        panel: the heading in help that it stands under, where its group has several.
        basic: whether most people need it, so that it is in the short help.
    """

    default: Any
    help: str
    kind: type = str
    option: str | None = None
    metavar: str = ""
    least: float | None = None
    most: float = math.inf
    above: float | None = None
    choices: tuple[str, ...] = ()
    none: str = ""
    reason: str = ""
    published: Any = _OWN
    shown: str = ""
    panel: str = ""
    basic: bool = False

    def check(self, name: str, value: Any) -> None:
        """Refuse a value outside the limits; `name` is what the setting is called where it was given.

        Raises:
            InputError: such a value.
        """
        if (value is None and (self.none or self.default is None)) or (value == "auto" == self.default):
            return
        if self.choices:
            if value not in self.choices:
                raise InputError(f"{name} must be one of {', '.join(map(repr, self.choices))}, got {value!r}")
        elif self.kind in (int, float) and not self._admits(value):
            more = f": {self.reason}" if self.reason else ""
            raise InputError(f"{name} must {self._allowed(value)}, got {value!r}{more}")

    def words(self, value: Any) -> str:
        """A value as it is said on the command line."""
        if value is None:
            return self.none
        return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)

    def shape(self) -> str:
        """How help shows the value: its unit or its choices, and the words for "auto" and None."""
        names = "|".join(self.choices)
        own = self.metavar or (names if 0 < len(names) < _LONG else "N" if self.kind is int else "NAME")
        words = ["auto"] * (self.default == "auto" and not self.choices) + [self.none] * bool(self.none)
        return "|".join([own, *words])

    def default_in_words(self) -> str | bool:
        """The default where it depends on others or is None, in words; else whether there is one to show."""
        if self.published not in (_OWN, self.default):
            return f"{self.shown or self.words(self.default)}; {self.words(self.published)} with --protocol fasp"
        return self.shown or self.default is not None

    def _admits(self, value: Any) -> bool:
        if isinstance(value, str):
            return False
        try:
            number = operator.index(value) if self.kind is int else float(value)
        except (TypeError, ValueError):
            return False
        if self.kind is float and not math.isfinite(number):
            return False
        least = -math.inf if self.least is None else self.least
        return least <= number <= self.most and (self.above is None or number > self.above)

    def _allowed(self, value: Any) -> str:
        if self.kind is int:
            whole = "" if hasattr(value, "__index__") else "a whole number"
            limit = "" if self.least is None else f"at least {self.least:g}"
            return f"be {' of '.join(filter(None, [whole, limit]))}"
        if self.above is not None:
            return "be a positive number" if self.most == math.inf else f"lie in ({self.above:g}, {self.most:g}]"
        if self.most == math.inf:
            return f"be at least {self.least:g}"
        return f"be a number within [{self.least:g}, {self.most:g}]"


def setting(default: Any, help: str, **known: Any) -> Any:
    """A field of a settings dataclass; `known` are further attributes of its `Setting`."""
    kind = type(default) if isinstance(default, bool | int | float) else str
    known = {"kind": kind, **known}
    return field(default=default, metadata={"setting": Setting(default=default, help=help, **known)})


def nested(group: type, **defaults: Any) -> Any:
    """A field that holds settings of its own; `defaults` are those that differ here."""
    return field(default_factory=lambda: group(**defaults), metadata={"settings": group, "defaults": defaults})


def settings_of(group: type) -> dict[str, Setting]:
    """The settings of a dataclass by name; of those within, "field.name"."""
    found: dict[str, Setting] = {}
    for each in fields(group):
        if "setting" in each.metadata:
            found[each.name] = each.metadata["setting"]
        elif "settings" in each.metadata:
            defaults = each.metadata["defaults"]
            for name, known in settings_of(each.metadata["settings"]).items():
                found[f"{each.name}.{name}"] = replace(known, default=defaults.get(name, known.default))
    return found


def option_of(name: str, known: Setting) -> str:
    """What a setting of this name is called on the command line."""
    return known.option or "--" + name.rpartition(".")[2].replace("_", "-")


def check(settings: object) -> None:
    """Refuse settings outside their limits; those within have checked themselves.

    Raises:
        InputError: such a setting.
    """
    for name, known in settings_of(type(settings)).items():
        if "." not in name:
            known.check(name, getattr(settings, name))


def published(group: type) -> dict[str, Any]:
    """The values of the published protocol, by field, where a setting has one."""
    found = {
        name: known.published
        for name, known in settings_of(group).items()
        if "." not in name and known.published is not _OWN
    }
    for each in fields(group):
        inner = published(each.metadata["settings"]) if "settings" in each.metadata else {}
        if inner:
            found[each.name] = each.metadata["settings"](**inner)
    return found


def amended(settings: _Settings, given: Mapping[str, Any]) -> _Settings:
    """The settings with other values, by the names of `settings_of`.

    Raises:
        InputError: a value outside its limits.
    """
    changes = {name: value for name, value in given.items() if "." not in name}
    for group in {name.partition(".")[0] for name in given if "." in name}:
        inner = {name.partition(".")[2]: value for name, value in given.items() if name.startswith(f"{group}.")}
        changes[group] = amended(getattr(settings, group), inner)
    return cast(_Settings, replace(cast(Any, settings), **changes))


def documented(group: _Class) -> _Class:
    """Give a settings dataclass a docstring that lists its settings; options in their help become names."""
    known = settings_of(group)
    names = {option_of(name, each): name for name, each in known.items()}
    lines = [f"        {name}: {each.help}" for name, each in known.items()]
    listed = re.sub(r"--[a-z-]+", lambda found: f"`{names.get(found[0], found[0])}`", "\n".join(lines))
    group.__doc__ = f"{(group.__doc__ or '').rstrip()}\n\n    Attributes:\n{listed}\n"
    return group
