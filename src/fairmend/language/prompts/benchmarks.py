"""Benchmarks of choices by name. Nothing heavy is imported before one is asked for."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from fairmend.errors import InputError

if TYPE_CHECKING:
    from fairmend.artifacts import Progress
    from fairmend.language.prompts.choices import ChoiceSet

BENCHMARKS: tuple[str, ...] = (
    "pronouns",
    "crows-pairs",
    "stereoset",
    "stereoset-intrasentence",
    "stereoset-intersentence",
    "winobias",
    "winogender",
    "bbq",
    "bbq-ambiguous",
    "bbq-disambiguated",
)


def choice_benchmark(name: str, progress: Progress | None = None) -> ChoiceSet:
    """The benchmark of that name, one of `BENCHMARKS`.

    Raises:
        InputError: there is none of that name; the message names close ones.
        ArtifactError: the wheel cannot be fetched; the message says what to fetch.
    """
    if name not in BENCHMARKS:
        close = difflib.get_close_matches(name.lower().replace("_", "-"), BENCHMARKS, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(BENCHMARKS)}"
        raise InputError(f"unknown benchmark {name!r}: {hint}")
    from fairmend.language.prompts.bbq import bbq
    from fairmend.language.prompts.crows_pairs import crows_pairs
    from fairmend.language.prompts.pronouns import pronoun_choices
    from fairmend.language.prompts.stereoset import stereoset
    from fairmend.language.prompts.winograd import winobias, winogender

    loaders: dict[str, Callable[..., ChoiceSet]] = {
        "pronouns": pronoun_choices,
        "crows-pairs": crows_pairs,
        "stereoset": stereoset,
        "stereoset-intrasentence": partial(stereoset, "intrasentence"),
        "stereoset-intersentence": partial(stereoset, "intersentence"),
        "winobias": winobias,
        "winogender": winogender,
        "bbq": bbq,
        "bbq-ambiguous": partial(bbq, "ambiguous"),
        "bbq-disambiguated": partial(bbq, "disambiguated"),
    }
    return loaders[name](progress=progress)
