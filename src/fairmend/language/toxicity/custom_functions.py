"""Functions of a user's own, named "python:MODULE:FUNCTION": found, called, and their numbers checked."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from fairmend.errors import InputError, first_line

Floats = npt.NDArray[np.float64]

_LIBRARIES = tuple(Path(sysconfig.get_path(kind)) for kind in ("stdlib", "platstdlib", "purelib", "platlib"))


def load_function(spec: str, role: str, takes: tuple[str, ...]) -> Callable[..., Any]:
    """Import the function that "python:MODULE:FUNCTION" names; modules in the working directory are found.

    Args:
        spec: the name.
        role: what the function is, for error messages, such as "scorer".
        takes: what it is called with, in words, such as "a list of texts".

    Raises:
        InputError: a malformed name, a module that cannot be imported, no such function in it, or one that cannot be
            called so.
    """
    parts = spec.split(":")
    if len(parts) != 3 or not all(parts) or parts[0] != "python":
        hint = f": write python:{spec}" if len(parts) == 2 and all(parts) and parts[0] != "python" else ""
        raise InputError(f"{role}s of your own are named python:MODULE:FUNCTION, got {spec!r}{hint}")
    _, module_name, function_name = parts
    if "/" in module_name or "\\" in module_name or module_name.endswith(".py"):
        raise InputError(
            f"the {role} {spec!r} names a file: name the module, as import does, such as python:"
            f"{Path(module_name).stem}:{function_name}, and run the command in the file's folder"
        )
    try:
        with _working_directory_importable():
            module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # importing runs the user's code, which may raise anything
        raise InputError(f"cannot import the module {module_name!r} of the {role} {spec!r}: {_told(error)}") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise InputError(_no_function(module, function_name))
    _check_call(function, f"the {role} {spec}", takes)
    checked: Callable[..., Any] = function
    return checked


def called(function: Callable[..., Any], who: str, *arguments: Any) -> Any:
    """What the function gives for these arguments.

    Raises:
        InputError: it raises something; the message has its type and place.
    """
    try:
        return function(*arguments)
    except (Exception, SystemExit) as error:  # whatever a user's function raises, its name belongs in the message
        raise InputError(f"{who} failed: {_told(error)}") from error


def as_numbers(given: Any, who: str, expected: str) -> Floats:
    """An array of float64 of the same shape as what a function gave.

    Raises:
        InputError: it is no array of real numbers.
    """
    kind = type(given).__name__
    try:
        raw = np.asarray(given)
    except Exception as error:  # tensors of an accelerator or with gradients, uneven lists
        raise InputError(f"{who} gave a {kind} that is no array ({first_line(error)}): {expected}") from error
    if raw.dtype == np.object_ and raw.ndim == 0:
        raise InputError(f"{who} gave a {kind}: {expected}")
    if not (np.issubdtype(raw.dtype, np.number) or raw.dtype == np.bool_) or np.iscomplexobj(raw):
        raise InputError(f"{who} gave values of type {raw.dtype}: {expected}")
    return raw.astype(np.float64)


def source_digest(function: Callable[..., Any]) -> str | None:
    """SHA-256 of the file that defines a function, None when it has none."""
    with suppress(OSError, TypeError):
        source = inspect.getsourcefile(inspect.unwrap(function))
        return hashlib.sha256(Path(source).read_bytes()).hexdigest() if source else None
    return None


def _check_call(function: Callable[..., Any], who: str, takes: tuple[str, ...]) -> None:
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise InputError(f"{who} is a coroutine or a generator: it must return its numbers")
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):  # written in C, and silent about it
        return
    try:
        signature.bind(*takes)
    except TypeError as error:
        raise InputError(
            f"{who} takes {signature} ({error}): it is called as function({', '.join(takes)}), nothing else is given"
        ) from error


def _no_function(module: ModuleType, name: str) -> str:
    where = getattr(module, "__file__", None) or "built in"
    if hasattr(module, name):
        kind = type(getattr(module, name)).__name__
        return f"{name!r} of the module {module.__name__!r} ({where}) is a {kind}, no function"
    found = [key for key, member in vars(module).items() if inspect.isfunction(member)]
    shown = ", ".join(found[:12]) + (f" and {len(found) - 12} more" if len(found) > 12 else "")
    return f"the module {module.__name__!r} ({where}) has no function {name!r}; it has {shown or 'none'}"


def _told(error: BaseException) -> str:
    """An error of the user's code: type, text, and the innermost place that is not a library's."""
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, SyntaxError):  # which tells its place itself
        return said
    # The first frame is ours.
    frames = [frame for frame in traceback.extract_tb(error.__traceback__)[1:] if "importlib" not in frame.filename]
    own = [frame for frame in frames if not any(Path(frame.filename).is_relative_to(folder) for folder in _LIBRARIES)]
    if not frames:
        return said
    place = own[-1] if own else frames[0]
    return f"{said} ({Path(place.filename).name}, line {place.lineno}, in {place.name})"


@contextmanager
def _working_directory_importable() -> Iterator[None]:
    """An installed command does not look for modules where it is run; python -c does."""
    here = str(Path.cwd())
    sys.path.append(here)
    try:
        yield
    finally:
        with suppress(ValueError):
            sys.path.remove(here)
