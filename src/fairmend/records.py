"""What is written as JSON, and how it is read back: plain values, kinds of files, versions, and one error for all.

    REPAIR = Kind("language repair", 1, "result.json", noun="saved repair", again="repair")
    write(folder / REPAIR.file, REPAIR, {"settings": settings, "axes": found.axes, "versions": versions("numpy")})
    content = read(folder / REPAIR.file, REPAIR)            # RunError: damaged, foreign, newer, older
    settings = built(content["settings"], RepairSettings)   # ValueError: an entry is missing or of another type

Records are frozen dataclasses as they are: an entry per field, no `to_json` and no `from_json`. cattrs reads them back,
because it takes dataclasses without a base class of its own and is light to import. What is read has exactly the types
that the fields say: "3" is no number, 3 is no text, and an entry too many is an error.

A number that JSON does not know (NaN, infinity) is written as null, and null is read as NaN where a `float` is
expected; `float | None` keeps None. Arrays and sets are lists, a `Path` is a text, a `Space` is as
docs/reference/files-tabular.md has it, and a `Mask` is `{"units": 5, "dropped": [0, 3], "dials": []}`.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin

import cattrs
import numpy as np
from cattrs.strategies import configure_union_passthrough

import fairmend
from fairmend.errors import RunError, first_line
from fairmend.escaping import encoded
from fairmend.files import read_json, require_plain, write_atomically
from fairmend.masks import Dial, Mask, Site, Space

RUN = "run.sqlite"
"""The store of a run, see `fairmend.runs`."""

_Record = TypeVar("_Record")
_Class = TypeVar("_Class", bound=type)
_MISREAD = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError)


@dataclass(frozen=True)
class Kind:
    """What a file of records, or the folder of a run, is.

    Args:
        name: such as "language repair": the `kind` of a run's store, and after "fairmend" the `schema` of its file.
        version: rises when an entry changes its meaning or goes; None reads any.
        file: the name of its file.
        noun: what it is, for messages.
        again: what makes it anew, for messages.
    """

    name: str
    version: int | None = 1
    file: str = "result.json"
    noun: str = "saved repair"
    again: str = "repair"

    @property
    def schema(self) -> str:
        """What its file says it is."""
        return f"fairmend {self.name}"

    @property
    def head(self) -> dict[str, Any]:
        """The first entries of its file."""
        return {"schema": self.schema, "schema_version": self.version}


def plain(value: Any) -> Any:
    """The same value for strict JSON: records and mappings as dicts, see the head of this module."""
    written = _WRITTEN.get(type(value))
    if written is not None:
        return written(value)
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if is_dataclass(value) and not isinstance(value, type):
        named = [field.name for field in fields(value) if field.init]
        return {name: plain(getattr(value, name)) for name in (*named, *_DERIVED.get(type(value), ()))}
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, Set):
        return [plain(entry) for entry in sorted(value)]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(entry) for entry in value]
    return os.fspath(value) if isinstance(value, Path) else value


def built(payload: Any, record: type[_Record]) -> _Record:
    """The record that `plain` described.

    Raises:
        ValueError: an entry is missing, too many, or of another type or range; names it.
    """
    try:
        return _CONVERTER.structure(payload, record)
    except cattrs.BaseValidationError as error:
        said = cattrs.transform_error(error, path=record.__name__, format_exception=_said)
        raise ValueError("; ".join(said[:2])) from error
    except _MISREAD as error:
        raise ValueError(f"{_said(error, record)} @ {record.__name__}") from error


def derived(*properties: str) -> Callable[[_Class], _Class]:
    """Decorates a dataclass whose description also holds these properties; they are not read back."""

    def note(record: _Class) -> _Class:
        _DERIVED[record] = properties
        _CONVERTER.register_structure_hook_factory(lambda kind: kind is record, _rest_reader)
        return record

    return note


def document(payload: Any, kind: Kind | None = None) -> bytes:
    """A JSON document, headed by what kind of file it is."""
    content = plain(payload) if kind is None else kind.head | plain(payload)
    return encoded(json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def write(path: Path, kind: Kind, payload: Any) -> None:
    """Write a file whole or not at all.

    Raises:
        RunError: it cannot be written.
    """
    write_atomically(path, document(payload, kind))


def read(path: Path, *kinds: Kind) -> dict[str, Any]:
    """Read a file that a command left in its directory.

    Args:
        path: the file.
        kinds: what it may be.

    Raises:
        RunError: it is not there, is damaged, or is of another kind or version.
    """
    kind, folder = kinds[0], path.parent
    if not require_plain(path):
        if require_plain(folder / RUN):
            raise RunError(
                f"{folder} holds a run that has not finished (no {path.name}): go on with `fairmend resume {folder}`"
            )
        raise RunError(f"{folder} holds no {kind.noun} (no {path.name}): name the directory given as --out")
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({error}): {kind.again} again, or restore it from a copy") from error
    schema = content.get("schema") if isinstance(content, dict) else None
    found = next((each for each in kinds if each.schema == schema), None)
    if found is None:
        older = isinstance(content, dict) and schema is None and isinstance(content.get("kind"), str)
        raise RunError(
            f"{path} was written by fairmend 0.1.0, which this version does not read: use the version that wrote it, "
            f"or {kind.again} again"
            if older
            else f"{path} is not the result of a {' or a '.join(each.schema for each in kinds)}: name the directory of "
            "one"
        )
    if found.version is not None and content.get("schema_version") != found.version:
        raise RunError(
            f"{path} has schema version {content.get('schema_version')!r}, this fairmend reads {found.version}: use "
            f"the version of fairmend that wrote it ({content.get('versions')!r})"
        )
    return dict(content)


def versions(*packages: str) -> dict[str, str]:
    """The versions of fairmend, Python and the packages that figures depend on."""
    found = {package: importlib.metadata.version(package) for package in packages}
    return {"fairmend": fairmend.__version__, "python": platform.python_version()} | found


def session(request: Mapping[str, Any] | None, command: str) -> dict[str, Any]:
    """When and how something was made; the only part in which two equal runs differ.

    Args:
        request: the options as they were given.
        command: the command line.
    """
    return {
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "request": dict(request or {}),
        "platform": platform.platform(),
    }


def differences(stored: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """Each setting that differs, as "name: was X, is Y", nested names joined by dots."""
    before, now = dict(_flat(stored)), dict(_flat(given))
    return [
        f"{name}: was {before.get(name, 'absent')}, is {now.get(name, 'absent')}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]


def _flat(payload: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in payload.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", json.dumps(value, sort_keys=True)


def _write_space(space: Space) -> dict[str, Any]:
    return {
        "sites": [[site.name, site.units] for site in space.sites],
        "min_drop": space.min_drop,
        "max_drop": space.max_drop,
        "frozen": sorted(space.frozen),
        "dials": [[dial.name, dial.low, dial.high, dial.step] for dial in space.dials],
    }


def _read_space(payload: Any, _: object) -> Space:
    return Space(
        sites=tuple(Site(str(name), int(units)) for name, units in payload["sites"]),
        min_drop=int(payload["min_drop"]),
        max_drop=None if payload["max_drop"] is None else int(payload["max_drop"]),
        frozen=frozenset(int(unit) for unit in payload["frozen"]),
        dials=tuple(Dial(str(n), float(low), float(high), float(step)) for n, low, high, step in payload["dials"]),
    )


def _write_mask(mask: Mask) -> dict[str, Any]:
    return {"units": mask.n_units, "dropped": list(mask.units()), "dials": list(mask.dials)}


def _read_mask(payload: Any, _: object) -> Mask:
    bits = sum(1 << unit for unit in set(_CONVERTER.structure(payload["dropped"], tuple[int, ...])))
    return Mask(bits, int(payload["units"]), _CONVERTER.structure(payload["dials"], tuple[float, ...]))


def _read_exact(value: Any, kind: Any) -> Any:
    if type(value) is not kind:
        raise TypeError(f"is {value!r}, not {_NAMES[kind]}")
    return value


def _read_float(value: Any, _: object) -> float:
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"is {value!r}, not a number")
    return float(value)


def _read_array(value: Any, kind: Any) -> Any:
    dtype = next(iter(get_args(get_args(kind)[1])), None) if get_args(kind) else None
    if not isinstance(value, list | tuple | np.ndarray):
        raise TypeError(f"is {value!r}, not a list of numbers")
    return np.array(value, dtype=dtype if isinstance(dtype, type) else None)


def _is_array(kind: Any) -> bool:
    return kind is np.ndarray or get_origin(kind) is np.ndarray


def _is_list(kind: Any) -> bool:
    return get_origin(kind) in (tuple, list, frozenset, Sequence)


def _list_reader(kind: Any, converter: cattrs.BaseConverter) -> Callable[[Any, Any], Any]:
    origin, inner = get_origin(kind), get_args(kind)
    make = {list: list, frozenset: frozenset}.get(origin, tuple)

    def read_list(value: Any, _: object) -> Any:
        if not isinstance(value, list | tuple | frozenset):
            raise TypeError(f"is {value!r}, not a list")
        if origin is not tuple or inner[-1] is Ellipsis:
            return make(converter.structure(entry, inner[0]) for entry in value)
        return make(converter.structure(entry, each) for entry, each in zip(value, inner, strict=True))

    return read_list


def _rest_reader(record: type, converter: cattrs.Converter) -> Callable[[Any, Any], Any]:
    read_fields: Callable[[Any, Any], Any] = cattrs.gen.make_dict_structure_fn(record, converter)

    def read_rest(payload: Any, _: object) -> Any:
        rest = {name: entry for name, entry in payload.items() if name not in _DERIVED[record]}
        return read_fields(rest, record)

    return read_rest


def _said(error: BaseException, _: object) -> str:
    """What is wrong, without the name of the entry."""
    if isinstance(error, cattrs.ForbiddenExtraKeysError):
        return f"has {', '.join(sorted(error.extra_fields))}, which it should not"
    if isinstance(error, KeyError):
        return f"lacks {error.args[0]!r}"
    return first_line(error)


_NAMES = {int: "a whole number", str: "a text", bool: "true or false"}
_WRITTEN: dict[type, Callable[[Any], Any]] = {Space: _write_space, Mask: _write_mask}
_DERIVED: dict[type, tuple[str, ...]] = {}
_CONVERTER = cattrs.Converter(forbid_extra_keys=True)
for _kind in _NAMES:
    _CONVERTER.register_structure_hook(_kind, _read_exact)
_CONVERTER.register_structure_hook(float, _read_float)
_CONVERTER.register_structure_hook(Space, _read_space)
_CONVERTER.register_structure_hook(Mask, _read_mask)
_CONVERTER.register_structure_hook(
    Path, lambda value, _: value if isinstance(value, Path) else Path(_read_exact(value, str))
)
_CONVERTER.register_structure_hook_func(_is_array, _read_array)
_CONVERTER.register_structure_hook_factory(_is_list, _list_reader)
configure_union_passthrough(Union[str, bool, int, float, None], _CONVERTER)  # noqa: UP007 - takes no other form
