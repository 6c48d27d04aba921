"""Functions of a user's own, named "python:MODULE:FUNCTION"."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fairmend.errors import InputError


def load_function(spec: str, role: str) -> Callable[..., Any]:
    """Import the function that "python:MODULE:FUNCTION" names; modules in the working directory are found.

    Args:
        spec: the name.
        role: what the function is, for error messages, such as "scorer".

    Raises:
        InputError: a malformed name, a module that cannot be imported, or no such function in it.
    """
    parts = spec.split(":")
    if len(parts) != 3 or not all(parts) or parts[0] != "python":
        raise InputError(f"{role}s of your own are named python:MODULE:FUNCTION, got {spec!r}")
    _, module_name, function_name = parts
    try:
        with _working_directory_importable():
            module = importlib.import_module(module_name)
    except Exception as error:  # importing runs the user's code, which may raise anything
        raise InputError(
            f"cannot import the module {module_name!r} of the {role} {spec!r}: {type(error).__name__}: {error}"
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        found = [name for name, member in vars(module).items() if inspect.isfunction(member)]
        raise InputError(
            f"the module {module_name!r} has no function {function_name!r}; it has {', '.join(found) or 'none'}"
        )
    checked: Callable[..., Any] = function
    return checked


def source_digest(function: Callable[..., Any]) -> str | None:
    """SHA-256 of the file that defines a function, None when it has none."""
    with suppress(OSError, TypeError):
        source = inspect.getsourcefile(inspect.unwrap(function))
        return hashlib.sha256(Path(source).read_bytes()).hexdigest() if source else None
    return None


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
