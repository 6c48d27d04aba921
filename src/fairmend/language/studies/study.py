"""Sets of heads judged side by side on held-out prompts and text: what compare, equal cost and sweep have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from fairmend.language.measurement.evaluator import LanguageEvaluator
from fairmend.language.measurement.judging import JUDGED, Judgement, judgement_cells
from fairmend.language.prompts.prompts import PromptSet
from fairmend.language.records.results import PACKAGES, describe_data, describe_gains, describe_model
from fairmend.language.repair.subject import Subject
from fairmend.masks import Mask
from fairmend.records import plain, session, versions
from fairmend.report.study import Study, save_study
from fairmend.report.tables import Cell, Column, Table
from fairmend.statistics import written_p_value

UNTOUCHED = "untouched"
NOT_CHOSEN = (
    "nothing was chosen among the lines: whoever picks the best of them has chosen on these prompts, and should judge "
    "it on others"
)


@dataclass(frozen=True, kw_only=True)
class JudgedSet(ABC):
    """One line of a study.

    Attributes:
        mask: the dropped heads.
        judgement: before against after on held-out prompts and text.
    """

    mask: Mask
    judgement: Judgement

    @abstractmethod
    def cells(self) -> dict[str, Cell]:
        """What tells the line apart from the others, by the names of columns, with the number of `heads`."""

    def to_json(self) -> dict[str, Any]:
        """What tells the line apart from the others, JSON-ready."""
        return {name: value for name, value in self.cells().items() if name != "heads"}


Line = TypeVar("Line", bound=JudgedSet)


@dataclass(frozen=True, kw_only=True)
class JudgedStudy(Study, Generic[Line]):
    """Sets of heads side by side.

    Attributes:
        rows: one per set of heads.
        untouched: the model as it is, against itself.
        subject: the model, and everything that it could be repaired for and judged on.
        search_prompts: what was searched with.
        judge: what measured every set on held-out prompts and text.
        notes: what a reader should know.
        caveat: what the figures do not mean.
        before: how the untouched model's line begins, see `JudgedSet.cells`.
    """

    rows: tuple[Line, ...]
    untouched: Judgement
    subject: Subject
    search_prompts: PromptSet
    judge: LanguageEvaluator
    notes: tuple[str, ...] = ()

    caveat: ClassVar[str]
    before: ClassVar[Mapping[str, Cell]]

    @abstractmethod
    def columns(self) -> tuple[Column, ...]:
        """What people see of `JudgedSet.cells`, before the held-out figures."""

    def facts(self) -> dict[str, Any]:
        """What only this kind of study has, JSON-ready."""
        return {}

    def remarks(self) -> Sequence[str]:
        """What people read below the table, before the notes."""
        return ()

    def tables(self) -> tuple[Table, ...]:
        """One row per set of heads, the untouched model first."""
        lines = [(self.before, self.untouched, ""), *((row.cells(), row.judgement, _units(row)) for row in self.rows)]
        rows = tuple({**cells, **judgement_cells(judged), "dropped": dropped} for cells, judged, dropped in lines)
        title = f"{self.subject.lm.name}, {self.judge.figures.bias.name}: held-out prompts and text"
        caveat = f"{self.caveat[:1].upper()}{self.caveat[1:]}."
        notes = (self._noise(), *self.remarks(), *self.notes, caveat)
        return (Table(title, (*self.columns(), *JUDGED), rows, notes),)

    def to_json(self) -> dict[str, Any]:
        """Everything found, JSON-ready but for NaN."""
        return {
            "caveat": self.caveat,
            **self.facts(),
            "rows": [
                row.to_json() | {"dropped": list(row.mask.units()), **describe_gains(row.mask)} | plain(row.judgement)
                for row in self.rows
            ],
            "notes": list(self.notes),
            "untouched": self.untouched,
            "figures": plain(self.judge.figures) | {"parts": []},
            "heads": self.judge.space.n_units,
            "data": describe_data(self.search_prompts, self.judge.prompts, self.subject.texts),
        }

    def save(
        self, settings: object, out: str | Path, *, request: Mapping[str, Any] | None = None, command: str = ""
    ) -> dict[str, Path]:
        """Write the table as CSV, the picture and, last, everything as JSON; return the paths by name.

        Two studies of the same things differ under "session" only.

        Args:
            settings: of the study, a dataclass.
            out: the folder.
            request, command: see `fairmend.records.session`.

        Raises:
            RunError: a file cannot be written.
        """
        others = {"settings": settings, "model": describe_model(self.subject.lm), "versions": versions(*PACKAGES)}
        return save_study(self, Path(out), others | {"session": session(request, command)})

    def _noise(self) -> str:
        change = self.untouched.main.change
        assert change is not None  # a model that is broken without any mask is refused
        figures = change.before
        return (
            f"Noise floor of the untouched model's bias: {figures.floor:.4f} ({written_p_value(figures.p_value)}); "
            f"{figures.n:,} held-out prompts, scorer {figures.scorer}."
        )


def _units(row: JudgedSet) -> str:
    return " ".join(map(str, row.mask.units()))
