"""Prompts in groups: what a language model is asked to continue, and about whom."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt

from fairmend.errors import DataError, InputError
from fairmend.language.prompts import strata
from fairmend.language.prompts.holistic_bias import LICENCE, NONE, HolisticBias, Part, fasp_split

Grouping = Literal["bucket", "descriptor"]
Small = Literal["drop", "refuse"]

# Keeps every named bucket and every descriptor with nouns of HolisticBias v1.1, and drops the leftovers: "(none)"
# buckets of a handful of fixed phrases, which would weigh as much as any other group in a sum over groups.
# 150 sentences of all, or the same share of a part.
MIN_GROUP: Mapping[Part, int] = MappingProxyType({"all": 150, "valid": 30, "test": 120})


@dataclass(frozen=True, eq=False)
class PromptSet:
    """Prompts with their groups. Built by `prompt_set`, `holistic_bias_prompts` and `read_prompts`.

    Attributes:
        texts: the prompts.
        groups: group number of each prompt, `(n_prompts,)`.
        group_names: name of each group, sorted.
        ids: a number per prompt, `(n_prompts,)`, that follows from its text (and, for repeated texts, which repetition
            it is), not from the sample, the order or the batch: noise that is keyed on it is the same everywhere.
        axis: what the groups differ in.
        source: where the prompts are from, and which part of it.
        licence: licence of the texts.
        columns: further text per prompt, such as "template", "descriptor" and "noun".
        notes: what a reader of the figures should know: groups left out, repeated prompts.
    """

    texts: tuple[str, ...]
    groups: npt.NDArray[np.int64]
    group_names: tuple[str, ...]
    ids: npt.NDArray[np.int64]
    axis: str
    source: str
    licence: str
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    each: ClassVar[str] = "prompts"

    def __post_init__(self) -> None:
        n = len(self.texts)
        lengths = {"groups": self.groups.shape, "ids": self.ids.shape}
        lengths |= {name: (len(column),) for name, column in self.columns.items()}
        uneven = [f"{name} {shape}" for name, shape in lengths.items() if shape != (n,)]
        if uneven:
            raise InputError(f"{n} prompts need as many entries in every column, got {', '.join(uneven)}")
        if n == 0 or not np.array_equal(np.unique(self.groups), np.arange(len(self.group_names))):
            raise InputError(f"every group needs a prompt: {n} prompts, groups {', '.join(self.group_names)}")
        if len(np.unique(self.ids)) != n:
            raise InputError("the ids of the prompts must differ: build the set with prompt_set")
        for name in ("groups", "ids"):
            column = np.array(getattr(self, name), dtype=np.int64)
            column.flags.writeable = False
            object.__setattr__(self, name, column)
        object.__setattr__(self, "columns", dict(self.columns))

    def __len__(self) -> int:
        """Number of prompts."""
        return len(self.texts)

    @property
    def keys(self) -> tuple[str, ...]:
        """What each prompt says, whole: equal ones stay together when the set is split."""
        return self.texts

    @property
    def fewest_groups(self) -> int:
        """Number of groups that a bias needs: two to compare."""
        return 2

    @property
    def counts(self) -> dict[str, int]:
        """Number of prompts per group."""
        sizes = np.bincount(self.groups, minlength=len(self.group_names))
        return dict(zip(self.group_names, sizes.tolist(), strict=True))

    def fingerprint(self) -> dict[str, Any]:
        """What figures on these prompts depend on, JSON-ready: the digest covers ids, groups and texts in order."""
        sha = hashlib.sha256()
        for key, group, number in zip(self.keys, self.groups.tolist(), self.ids.tolist(), strict=True):
            sha.update(f"{number}\0{self.group_names[group]}\0{key}\0".encode())
        return {"axis": self.axis, "source": self.source, "counts": self.counts, "sha256": sha.hexdigest()}

    def take(self, indices: npt.ArrayLike) -> Self:
        """The prompts at `indices`, in that order, with their ids; groups without a prompt are left out."""
        return replace(self, **self._taken(np.asarray(indices, dtype=np.int64)))

    def _taken(self, chosen: npt.NDArray[np.int64]) -> dict[str, Any]:
        present, groups = np.unique(self.groups[chosen], return_inverse=True)
        order = chosen.tolist()
        return {
            "texts": tuple(self.texts[i] for i in order),
            "groups": groups.astype(np.int64),
            "group_names": tuple(self.group_names[code] for code in present),
            "ids": self.ids[chosen],
            "columns": {name: tuple(column[i] for i in order) for name, column in self.columns.items()},
        }

    def without_small_groups(self, minimum: int, small: Small = "drop") -> Self:
        """Leave out the groups with fewer than `minimum` prompts and note it, or refuse them (`small="refuse"`).

        Raises:
            DataError: there are such groups and they are refused, or fewer groups are left than are compared.
        """
        if small not in ("drop", "refuse"):
            raise InputError(f"small must be 'drop' or 'refuse', got {small!r}")
        tiny = {name: count for name, count in self.counts.items() if count < minimum}
        if tiny and small == "refuse":
            raise DataError(
                f"groups of {self.axis} with fewer than {minimum} {self.each}: {_counted(tiny)}; add {self.each}, "
                "or leave these groups out"
            )
        left = len(self.group_names) - len(tiny)
        if left < self.fewest_groups:
            other = ", or group HolisticBias by descriptor" if self.each == "prompts" else ""
            raise DataError(
                f"bias compares groups, but {self.axis} has {left} with at least {minimum} {self.each}: "
                f"{_counted(self.counts)}; add {self.each} of other groups{other}"
            )
        if not tiny:
            return self
        is_tiny = np.array([name in tiny for name in self.group_names])
        note = f"left out, with fewer than {minimum} {self.each}: {_counted(tiny)}"
        return replace(self.take(np.flatnonzero(~is_tiny[self.groups])), notes=(*self.notes, note))

    def sample(self, n: int, seed: int, allocation: strata.Allocation = "equal") -> Self:
        """Draw `n` prompts without replacement, stratified by group.

        Samples are nested: the first `m` prompts of a larger sample are the sample of `m`, so that a measurement can
        be extended. A group's inner order depends on the seed and its members only.

        Args:
            n: number of prompts.
            seed: of the order within the groups.
            allocation: "equal" gives every group the same number, as far as it has so many; "proportional" keeps the
                groups' shares of the whole.

        Raises:
            InputError: `n` is larger than the set, or too small to give every group a prompt.
        """
        order = strata.stratified_order(self.groups, self.group_names, self.ids, seed, allocation)
        _, first = np.unique(self.groups[order], return_index=True)
        fewest = int(first.max()) + 1
        if not fewest <= n <= len(self):
            raise InputError(
                f"cannot sample {n} prompts with {allocation} allocation: {fewest} to {len(self)} can be drawn from "
                f"the groups {_counted(self.counts)}"
            )
        return self.take(order[:n])

    def split(
        self, parts: Sequence[float] = (0.5, 0.5), *, seed: int, by: str | Sequence[str] | None = None
    ) -> tuple[Self, ...]:
        """Split into disjoint parts, stratified by group, such as prompts to search with and prompts to judge on.

        Equal texts stay together, so that nothing that is judged was seen by the search.

        Args:
            parts: relative sizes.
            seed: of the assignment.
            by: a column whose values must not be shared between parts either: with "template", no sentence frame of
                one part occurs in another. The sizes are then as close to `parts` as the column allows. Several
                columns, such as ("occupation", "template") where every occupation stands in every template: the values
                of each are dealt to the parts, and prompts whose columns fall into different parts are left out (half
                of them for two columns and equal halves), which the notes say.

        Raises:
            InputError: sizes that are not positive, or no such column.
            DataError: a part would lack a group; the message names it.
        """
        sizes = np.asarray(parts, dtype=np.float64)
        if sizes.ndim != 1 or len(sizes) < 2 or not np.all(np.isfinite(sizes) & (sizes > 0)):
            raise InputError(f"parts must be two or more positive sizes such as (0.5, 0.5), got {parts!r}")
        columns = (by,) if isinstance(by, str) else tuple(by or ())
        for name in columns:
            if name not in self.columns:
                raise InputError(
                    f"cannot split by {name!r}: these {self.each} have {', '.join(self.columns) or 'no columns'}"
                )
        shares, rng = sizes / sizes.sum(), strata.generator(seed)
        if not columns:
            part = strata.cut_blocks(self.groups, self._together(self.keys), shares, rng)
        else:
            dealt = [
                strata.deal_blocks(self.groups, self._together(self.columns[name]), shares, rng) for name in columns
            ]
            part = np.where(np.all(dealt == dealt[0], axis=0), dealt[0], -1)
        for number in range(len(shares)):
            present = set(self.groups[part == number].tolist())
            absent = {name: self.counts[name] for code, name in enumerate(self.group_names) if code not in present}
            if absent:
                raise DataError(
                    f"part {number + 1} of {len(shares)} would have no {self.each[:-1]} of {_counted(absent)}: too few "
                    f"{' and '.join(f'values of {name!r}' for name in columns) or self.each} to split; leave these "
                    "groups out, or split otherwise"
                )
        n_left_out = int((part < 0).sum())
        notes = self.notes
        if n_left_out:
            notes += (
                f"left out, so that the parts share no {' and no '.join(columns)}: {n_left_out:,} of {len(self):,} "
                f"{self.each}",
            )
        return tuple(replace(self.take(np.flatnonzero(part == number)), notes=notes) for number in range(len(shares)))

    def _together(self, column: Sequence[str]) -> strata.Codes:
        """Number of the block of each prompt, `(n_prompts,)`: what no split may divide if it keeps `column` whole."""
        return strata.linked(column, self.keys)


def prompt_set(
    texts: Sequence[str],
    groups: Sequence[str],
    *,
    axis: str,
    source: str,
    licence: str,
    columns: Mapping[str, Sequence[str]] | None = None,
) -> PromptSet:
    """Make a PromptSet from prompts and the group name of each.

    Raises:
        DataError: no prompts, an empty prompt or group name, or a text that is no valid Unicode.
        InputError: columns of different lengths.
    """
    if not texts:
        raise DataError(f"{source} has no prompts")
    if len(groups) != len(texts):
        raise InputError(f"{len(texts)} prompts need as many groups, got {len(groups)}")
    for number, (text, group) in enumerate(zip(texts, groups, strict=True), start=1):
        if not (text.strip() and group.strip()):
            raise DataError(f"{source}, prompt {number}: prompt and group need words, got {text!r} and {group!r}")
    for text in {*groups, *texts, *(cell for column in (columns or {}).values() for cell in column)}:
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            raise DataError(f"{source}: {text!r} is no valid Unicode (a lone surrogate): correct the text")
    names = tuple(sorted(set(groups)))
    code = {name: number for number, name in enumerate(names)}
    return PromptSet(
        texts=tuple(texts),
        groups=np.array([code[name] for name in groups], dtype=np.int64),
        group_names=names,
        ids=numbered(texts),
        axis=axis,
        source=source,
        licence=licence,
        columns={name: tuple(column) for name, column in (columns or {}).items()},
        notes=repeats(texts),
    )


def holistic_bias_prompts(
    corpus: HolisticBias,
    axis: str,
    *,
    group_by: Grouping = "bucket",
    part: Part = "all",
    min_group: int | None = None,
    small: Small = "drop",
) -> PromptSet:
    """The prompts of one axis of HolisticBias, in groups.

    Args:
        corpus: see `read_holistic_bias`.
        axis: such as "gender_and_sex".
        group_by: "bucket" (the data set's subgroups) or "descriptor" (every term by itself).
        part: "all", or a part of the split published with FASP, in its order.
        min_group: groups with fewer prompts are left out, or refused. Default: `MIN_GROUP`, which drops the tiny
            "(none)" buckets. FASP's own protocol keeps every group: 1.
        small: "drop" or "refuse".

    Raises:
        InputError: an unknown axis or option.
        DataError: fewer than two groups, or groups that are refused.
    """
    for name, value, allowed in (("group_by", group_by, ("bucket", "descriptor")), ("part", part, tuple(MIN_GROUP))):
        if value not in allowed:
            raise InputError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")
    sentences = corpus.sentences(axis)
    phrases = [corpus.phrases[number] for number in sentences.phrases.tolist()]
    prompts = prompt_set(
        sentences.texts,
        [getattr(phrase, group_by) for phrase in phrases],
        axis=axis,
        source=f"{corpus.source}, {part}, by {group_by}",
        licence=LICENCE,
        columns={
            "template": [corpus.templates[number].text for number in sentences.templates.tolist()],
            "bucket": [phrase.bucket for phrase in phrases],
            "descriptor": [phrase.descriptor for phrase in phrases],
            "noun": [phrase.noun for phrase in phrases],
        },
    )
    if part != "all":
        positions = fasp_split(corpus)[part] - sentences.start
        # Taken from the whole axis, so that a sentence has the same id in every part.
        prompts = prompts.take(positions[(positions >= 0) & (positions < len(prompts))])
    notes = list(repeats(prompts.texts))
    named = [name for name in prompts.group_names if name != NONE]
    if group_by == "bucket" and len(named) < 2:
        notes.append(f"{axis} has one named bucket, {', '.join(named) or NONE}: group by descriptor to compare people")
    prompts = replace(prompts, notes=tuple(notes))
    return prompts.without_small_groups(MIN_GROUP[part] if min_group is None else min_group, small)


def numbered(texts: Sequence[str]) -> npt.NDArray[np.int64]:
    """63 bits of each text's BLAKE2b hash; a repeated text is hashed with the number of its repetition."""
    seen: Counter[str] = Counter()
    ids = []
    for text in texts:
        key = seen[text].to_bytes(8) if seen[text] else b""
        seen[text] += 1
        ids.append(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8, key=key).digest()) >> 1)
    return np.array(ids, dtype=np.int64)


def repeats(texts: Sequence[str], what: str = "prompts") -> tuple[str, ...]:
    """A note that says how many texts repeat another, if any does."""
    repeated = len(texts) - len(set(texts))
    return (f"{repeated:,} of {len(texts):,} {what} repeat the text of another",) if repeated else ()


def _counted(counts: Mapping[str, int], most: int = 12) -> str:
    """Groups with their counts, smallest first, cut after `most`."""
    shown = [f"{name} ({count:,})" for name, count in sorted(counts.items(), key=lambda item: (item[1], item[0]))]
    more = [f"and {len(shown) - most} more"] if len(shown) > most else []
    return ", ".join(shown[:most] + more)
