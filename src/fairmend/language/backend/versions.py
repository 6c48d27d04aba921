"""Which releases of transformers are supported, and how it is said that one of them lacks what is needed.

Nothing is read with a default that hides its absence: what an architecture must have is asked for with `required`, and
what a release renamed or dropped ends in a message that names the release and the missing part.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import Any

from fairmend.errors import InputError, ModelError

OLDEST = "5.17"
"""Releases before it lack classes that are imported here."""
NEWEST_TESTED = "5.24"
"""Later ones are not refused: every model is proven before it is measured, see `proof`."""

_OWN_ATTENTION = (None, "eager", "sdpa")


def check_installed() -> None:
    """Refuse to go on without what language models need, or with a release of transformers that is too old.

    Raises:
        InputError: names the packages, or the release, and what to run.
    """
    missing = [name for name in ("transformers", "accelerate", "gguf") if find_spec(name) is None]
    if missing:
        raise InputError(
            f"not installed, and language models need it: {', '.join(missing)}. Run pip install 'fairmend[language]'"
        )
    if _numbers(transformers_version()) < _numbers(OLDEST):
        raise InputError(
            f"transformers {transformers_version()} is installed, {OLDEST} or newer is needed (tested up to "
            f"{NEWEST_TESTED}). Run pip install 'transformers>={OLDEST}'"
        )


def transformers_version() -> str:
    """The release of transformers that is installed."""
    import transformers

    return transformers.__version__


def lacking(owner: object, what: str) -> ModelError:
    """The error for a model class, or another object of transformers, without something that is needed.

    Args:
        owner: the object, named by its class.
        what: such as "its forward takes no argument attention_mask".
    """
    return ModelError(
        f"{type(owner).__name__}: {what} (transformers {transformers_version()}; {OLDEST} to {NEWEST_TESTED} are "
        f"supported). Try another of these releases, or another model, and report it"
    )


def required(owner: Any, name: str) -> Any:
    """An attribute that must be there.

    Raises:
        ModelError: it is not; the message names the class, the attribute and the release of transformers.
    """
    try:
        return getattr(owner, name)
    except AttributeError:
        raise lacking(owner, f"there is no {name}") from None


def own_attention(config: Any) -> Any:
    """A configuration that names no attention kernels but those of torch, whatever its file said.

    A file may name a repository (`owner/repo`) whose kernels transformers would fetch and run, and that even where
    `attn_implementation` is given to `from_pretrained`. None lets transformers choose among its own.
    """
    parts = [config, *(getattr(config, name, None) for name in required(config, "sub_configs"))]  # absent ones are None
    if any(part is not None and required(part, "_attn_implementation") not in _OWN_ATTENTION for part in parts):
        config._attn_implementation = None  # of the parts, too
    return config


def _numbers(version: str) -> tuple[int, int]:
    """The first two numbers of a version, which may go on with anything: 5.24.0.dev0, 6.0rc1."""
    found = re.match(r"(\d+)\.(\d+)", version)
    if found is None:
        raise InputError(f"transformers has version {version!r}, which is no number: {OLDEST} or newer is needed")
    return int(found[1]), int(found[2])
