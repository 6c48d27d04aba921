"""Choices in groups: what a language model is offered two ways to go on, and about whom.

An item is a context, alternatives `a` and `b`, and a group. The model's preference is
d = log P(a | context) - log P(b | context), in nats; of several alternatives on a side the probabilities are added.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import numpy.typing as npt

from fairmend.errors import DataError, InputError
from fairmend.evaluation import array_digest
from fairmend.language.prompts import strata
from fairmend.language.prompts.prompts import PromptSet, numbered, repeats

Alternatives = tuple[str, ...]
Compared = Literal["groups", "zero"]


@dataclass(frozen=True, eq=False)
class ChoiceSet(PromptSet):
    """Items with their groups. Built by `choice_set`, `read_choices` and the benchmarks.

    Attributes:
        texts: the contexts; "" where the alternatives are whole sentences.
        a, b: the alternatives on either side, continuations that begin with their own space where there is one.
        compared: "groups" where the mean preferences of groups are compared with each other (pronouns after male and
            female occupations), "zero" where `a` is the stereotype and `b` the anti-stereotype: every group's mean
            preference is compared with 0.
        weights: of each item in the mean of its group, `(n_items,)`.
        apart: columns whose values the halves of a repair must not share, so that held-out items have new words.
        pairs: number of the counterfactual pair that each item belongs to, `(n_items,)`: what is drawn together when
            the items are resampled, and kept together when they are split. Items of their own have a number of their
            own.
        places: what messages call each item, such as its line in a file.
    """

    each: ClassVar[str] = "items"

    a: tuple[Alternatives, ...] = ()
    b: tuple[Alternatives, ...] = ()
    compared: Compared = "groups"
    apart: tuple[str, ...] = ()
    weights: npt.NDArray[np.float64] = field(default_factory=lambda: np.ones(0))
    pairs: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    places: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        lengths = {name: len(getattr(self, name)) for name in ("a", "b", "weights", "pairs", "places")}
        uneven = [f"{name} {length}" for name, length in lengths.items() if length != len(self)]
        if uneven:
            raise InputError(f"{len(self)} items need as many entries in every column, got {', '.join(uneven)}")
        if self.compared not in get_args(Compared):
            raise InputError(f"compared must be one of {', '.join(get_args(Compared))}, got {self.compared!r}")

    @property
    def fewest_groups(self) -> int:
        """Number of groups that a bias needs: two to compare with each other, one to compare with zero."""
        return 2 if self.compared == "groups" else 1

    @property
    def keys(self) -> tuple[str, ...]:
        """What each item says, whole."""
        return tuple(_key(*item) for item in zip(self.texts, self.a, self.b, strict=True))

    def fingerprint(self) -> dict[str, Any]:
        """What figures on these items depend on, JSON-ready, see `PromptSet`."""
        design = array_digest(self.weights, self.pairs)
        return super().fingerprint() | {"compared": self.compared, "design_sha256": design}

    def take(self, indices: npt.ArrayLike) -> ChoiceSet:
        """The items at `indices`, in that order; groups without an item are left out."""
        chosen = np.asarray(indices, dtype=np.int64)
        order = chosen.tolist()
        return replace(
            self,
            **self._taken(chosen),
            a=tuple(self.a[i] for i in order),
            b=tuple(self.b[i] for i in order),
            weights=self.weights[chosen],
            pairs=self.pairs[chosen],
            places=tuple(self.places[i] for i in order),
        )

    def _together(self, column: Sequence[str]) -> strata.Codes:
        return strata.linked(super()._together(column).tolist(), self.pairs.tolist())


def choice_set(
    contexts: Sequence[str],
    a: Sequence[Alternatives],
    b: Sequence[Alternatives],
    groups: Sequence[str],
    *,
    axis: str,
    source: str,
    licence: str,
    compared: Compared = "groups",
    apart: tuple[str, ...] = (),
    weights: Sequence[float] | None = None,
    pairs: Sequence[str] | None = None,
    columns: Mapping[str, Sequence[str]] | None = None,
    places: Sequence[str] | None = None,
) -> ChoiceSet:
    """Make a ChoiceSet from items and the group name of each.

    Args:
        contexts, a, b, groups: of each item.
        axis, source, licence, compared, apart, columns: see `ChoiceSet` and `PromptSet`.
        weights: 1 each when not given.
        pairs: name of the pair of each item, "" for an item of its own.
        places: what messages call each item, such as its line in a file; its number when not given.

    Raises:
        DataError: no items; an item, named by its place, with an empty group, an empty alternative or the same
            alternative on both sides, or a weight that is not positive and finite; a text that is no valid Unicode.
        InputError: columns of different lengths.
    """
    n = len(contexts)
    if not n:
        raise DataError(f"{source} has no items")
    lengths = {"a": len(a), "b": len(b), "groups": len(groups)}
    lengths |= {
        name: len(column)
        for name, column in (("weights", weights), ("pairs", pairs), ("places", places))
        if column is not None
    }
    if set(lengths.values()) != {n}:
        raise InputError(f"{n} contexts need as many of everything, got {lengths}")
    named = tuple(places or (f"{source}, item {number}" for number in range(1, n + 1)))
    for where, context, first, second, group in zip(named, contexts, a, b, groups, strict=True):
        if not group.strip():
            raise DataError(f"{where}: the group is empty: name whom the item is about")
        for side, texts in (("a", first), ("b", second)):
            if not texts or not all(text.strip() for text in texts):
                raise DataError(f"{where}: alternative {side} is empty, got {texts!r}: it needs words")
        same = sorted(set(first) & set(second))
        if same:
            raise DataError(f"{where}: {same[0]!r} stands on both sides: a and b must differ")
        for text in (context, *first, *second, group):
            _check_unicode(text, where)
    for text in {*(columns or {}), *(cell for column in (columns or {}).values() for cell in column)}:
        _check_unicode(text, source)
    found = np.ones(n) if weights is None else np.asarray(weights, dtype=np.float64)
    wrong = np.flatnonzero(~(np.isfinite(found) & (found > 0)))
    if wrong.size:
        raise DataError(f"{named[wrong[0]]}: weight {found[wrong[0]]} must be a positive number")
    names = tuple(sorted(set(groups)))
    code = {name: number for number, name in enumerate(names)}
    keys = [_key(*item) for item in zip(contexts, a, b, strict=True)]
    own = ["" for _ in contexts] if pairs is None else list(pairs)
    labels = [f"pair {name}" if name else f"item {number}" for number, name in enumerate(own)]
    first_of = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    return ChoiceSet(
        texts=tuple(contexts),
        groups=np.array([code[name] for name in groups], dtype=np.int64),
        group_names=names,
        ids=numbered(keys),
        axis=axis,
        source=source,
        licence=licence,
        columns={name: tuple(column) for name, column in (columns or {}).items()},
        notes=repeats(keys, "items"),
        a=tuple(tuple(texts) for texts in a),
        b=tuple(tuple(texts) for texts in b),
        compared=compared,
        apart=apart,
        weights=found,
        pairs=np.array([first_of[label] for label in labels], dtype=np.int64),
        places=named,
    )


def _check_unicode(text: str, where: str) -> None:
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise DataError(f"{where}: {text!r} is no valid Unicode (a lone surrogate): correct the text")


def _key(context: str, a: Alternatives, b: Alternatives) -> str:
    """One text of an item that no other item has; "\\x1f" and "\\x1e" occur in no text that people write."""
    return "\x1e".join((context, "\x1f".join(a), "\x1f".join(b)))
