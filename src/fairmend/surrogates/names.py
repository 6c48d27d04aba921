"""The names of surrogates. Nothing is imported here, so that options can be made of them."""

from __future__ import annotations

from typing import Literal, get_args

SurrogateName = Literal["network", "additive", "pairwise"]
SURROGATE_NAMES: tuple[SurrogateName, ...] = get_args(SurrogateName)
