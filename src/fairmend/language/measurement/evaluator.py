"""What a set of dropped heads does to a language model: its bias, its perplexity, what it knows and how it drifts."""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from time import perf_counter
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

import fairmend
from fairmend.errors import DataError, InputError
from fairmend.evaluation import Evaluator, Figure, Figures, Measurement
from fairmend.language.bias.bias import bias, bias_standard_error
from fairmend.language.bias.design import design_of
from fairmend.language.bias.records import BiasProtocol
from fairmend.language.measurement.answers import Preferences, answers_of, masks_at_once
from fairmend.language.measurement.masked_perplexity import Reading
from fairmend.language.measurement.perplexity import Perplexity
from fairmend.language.models.models import LanguageModel
from fairmend.language.prompts.choices import ChoiceSet
from fairmend.language.prompts.prompts import PromptSet
from fairmend.language.protocols import Reference, Sampling
from fairmend.language.toxicity.scorer import Scorer
from fairmend.masks import Mask, Space

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]

_N_BOOT = 200
_PACKAGES = ("torch", "transformers", "tokenizers", "numpy")


class LanguageEvaluator:
    """Measures masks of the attention heads of one language model, on prompts of one axis and one text.

    Bias: what the model makes of the prompts compared between groups, with noise that belongs to the prompt, so that
    all masks have the same luck. Utility: perplexity, lower is better. The parts of a measurement hold the number of
    every prompt and sample, the log-likelihood of every window of the text, the preference of every item of knowledge,
    the drift of every window and what a second scorer makes of the same continuations, if they are asked for: enough to
    judge any two masks in pairs, see `scores`, `perplexity`, `knowing`, `drifting` and `second_scores`.

    With float32 weights several masks are packed into one batch when there are few prompts. In bfloat16 and float16
    tokens depend on the batch: masks are then measured one at a time, in batches of a fixed size that is part of the
    fingerprint.

    Args:
        lm: the model; it is left as it is.
        prompts: of one axis, in groups; a `ChoiceSet` is answered by preferences, see `Answers`.
        reading: the text; one `Reading` may serve several evaluators.
        scorer: of toxicity; not needed for choices.
        sampling: how prompts are continued, and what of it is scored.
        group_mean: what a group is compared with, see `BiasProtocol`.
        space: masks that may be measured; all by default.
        knowledge: items whose right answer is `a`, which must stay.
        drift: whether to measure how far the next tokens of the text drift from the original, too.
        second: another scorer of toxicity, for its opinion of the same continuations; not used for choices.

    Raises:
        InputError: a scorer that the protocol does not suit, or a reading or space of another model.
        DataError: prompts without two groups, or items that do not suit the model.
    """

    def __init__(
        self,
        lm: LanguageModel,
        prompts: PromptSet,
        reading: Reading,
        scorer: Scorer | None = None,
        *,
        sampling: Sampling | None = None,
        group_mean: Reference = "unweighted",
        space: Space | None = None,
        knowledge: ChoiceSet | None = None,
        drift: bool = False,
        second: Scorer | None = None,
    ) -> None:
        self.lm = lm
        self.prompts = prompts
        self.reading = reading
        self.scorer = scorer
        self.sampling = sampling or Sampling()
        self.group_mean: Reference = group_mean
        self.knowledge = knowledge
        self.has_drift = drift
        self.second = None if isinstance(prompts, ChoiceSet) else second
        self._space = lm.head_map.space() if space is None else space
        if reading.lm is not lm:
            raise InputError(
                f"the text is read by {reading.lm.name}, the masks are of {lm.name}: make one Reading each"
            )
        if self._space.n_units != lm.head_map.n_heads or len(self._space.dials) not in (0, lm.head_map.n_heads):
            raise InputError(
                f"the space has {self._space.n_units} units and {len(self._space.dials)} dials, {lm.name} has "
                f"{lm.head_map.n_heads} heads, and no dials or one each: build it with head_map.space()"
            )
        self.answers = answers_of(lm, prompts, scorer, self.sampling, self.second)
        self.design = design_of(prompts, group_mean)
        self.protocol = BiasProtocol(self.design.reference, self.answers.quantity)
        self._knowing = None if knowledge is None else _knowing(lm, knowledge)

    def __reduce__(self) -> tuple[Any, ...]:
        options: dict[str, Any] = {
            "sampling": self.sampling,
            "group_mean": self.group_mean,
            "space": self._space,
            "knowledge": self.knowledge,
            "drift": self.has_drift,
            "second": self.second,
        }
        return partial(LanguageEvaluator, **options), (self.lm, self.prompts, self.reading, self.scorer)

    def on(self, prompts: PromptSet, reading: Reading, space: Space | None = None) -> LanguageEvaluator:
        """The same protocol on other prompts and another text, with the same knowledge, and drift where it is measured.

        Raises:
            InputError, DataError: see the class.
        """
        return LanguageEvaluator(
            self.lm,
            prompts,
            reading,
            self.scorer,
            sampling=self.sampling,
            group_mean=self.group_mean,
            space=self._space if space is None else space,
            knowledge=self.knowledge,
            drift=self.has_drift,
        )

    @property
    def space(self) -> Space:
        """The masks that can be measured."""
        return self._space

    @cached_property
    def figures(self) -> Figures:
        """What the measurements mean."""
        samples, windows, what = self.answers.n_samples, range(len(self.reading.windows)), self.protocol.words.mean
        return Figures(
            bias=Figure(f"{self.prompts.axis} bias", "lower", f"{self.protocol}, {self.answers.described}"),
            utility=Figure("perplexity", "lower", self.reading.protocol.name),
            parts=(
                *(f"{what} of prompt {each // samples}" for each in range(len(self.prompts) * samples)),
                *(f"log-likelihood of window {number}" for number in windows),
                *(f"preference of knowledge {number}" for number in range(len(self.knowledge or ()))),
                *(f"drift of window {number}" for number in windows if self.has_drift),
                *(f"{what} of prompt {each // samples} by the second scorer" for each in range(self._n_second)),
            ),
        )

    @property
    def masks_at_once(self) -> int:
        """How many masks are measured in one batch."""
        return masks_at_once(self.lm, len(self.prompts))

    @property
    def tokens_per_mask(self) -> int:
        """How many tokens go through the model to measure one mask, continuations at their full length."""
        read = len(self.reading.tokens) * (3 if self.has_drift else 1)  # once more each by both models
        return self.answers.n_tokens(np.arange(len(self.prompts))) + self.tokens_of_knowledge + read

    @property
    def tokens_of_knowledge(self) -> int:
        """How many of them are of knowledge."""
        return 0 if self._knowing is None else self._knowing.n_tokens(np.arange(len(self._knowing.prompts)))

    def measure(self, masks: Sequence[Mask]) -> list[Measurement]:
        """One measurement per mask, in order; NaN where the mask broke the model.

        Raises:
            ModelError: a mask of another model, prompts that do not fit the context, out of memory.
        """
        made: list[Measurement] = []
        for start in range(0, len(masks), self.masks_at_once):
            part = masks[start : start + self.masks_at_once]
            rows = np.arange(len(self.prompts))
            made += self.measure_parts([(mask, rows, range(len(self.reading.windows))) for mask in part])
        return made

    def measure_parts(self, parts: Sequence[tuple[Mask, Codes, Sequence[int]]]) -> list[Measurement]:
        """One measurement per mask, each on some prompts (every group among them) and some windows, by their numbers.

        Returns:
            Parts are NaN for prompts and windows that are not among those given.
        """
        begun = perf_counter()
        masks = [mask for mask, _, _ in parts]
        found = self.answers.under([(mask, rows) for mask, rows, _ in parts])
        known = [np.zeros(0)] * len(masks)
        if self._knowing is not None:
            everything = np.arange(len(self._knowing.prompts))
            known = [values.ravel() for values in self._knowing.under([(mask, everything) for mask in masks])]
        read = [self.reading.sums(mask, numbers) for mask, _, numbers in parts]
        drifts = [self.reading.drifts(mask) if self.has_drift else np.zeros(0) for mask in masks]
        seconds = (perf_counter() - begun) / len(masks)
        return [
            self._measurement(rows, scores, numbers, windows, np.concatenate([knows, drifted]), seconds)
            for (_, rows, numbers), scores, windows, knows, drifted in zip(
                parts, found, read, known, drifts, strict=True
            )
        ]

    def _measurement(
        self, rows: Codes, scores: Floats, numbers: Sequence[int], windows: Floats, others: Floats, seconds: float
    ) -> Measurement:
        samples = self.answers.n_samples
        per_prompt, design = scores[:, :samples].mean(axis=1), self.design.take(rows)
        read = self.reading.perplexity(windows, numbers)
        all_scores = np.full((len(self.prompts), scores.shape[1]), math.nan)
        all_scores[rows] = scores
        all_windows = np.full(len(self.reading.windows), math.nan)
        all_windows[list(numbers)] = windows
        value, error = math.nan, math.nan
        if bool(np.isfinite(per_prompt).all()):
            value = float(bias(per_prompt, design))
            rng = np.random.default_rng(self.sampling.seed)  # the same resamples for every mask
            error = float(bias_standard_error(per_prompt, design, rng=rng, n_boot=_N_BOOT))
        return Measurement(
            bias=value,
            utility=read.value,
            parts=(
                *all_scores[:, :samples].ravel().tolist(),
                *all_windows.tolist(),
                *others.tolist(),
                *all_scores[:, samples:].ravel().tolist(),
            ),
            n=len(per_prompt),
            bias_se=error,
            utility_se=read.standard_error,
            seconds=seconds,
        )

    def scores(self, measurement: Measurement) -> Floats:
        """The number of every prompt and sample behind a measurement, (n_prompts, n_samples)."""
        return self._part(measurement, 0).reshape(len(self.prompts), self.answers.n_samples)

    def window_sums(self, measurement: Measurement) -> Floats:
        """Summed log-likelihood of every window of the text behind a measurement, (n_windows,)."""
        return self._part(measurement, 1)

    def perplexity(self, measurement: Measurement) -> Perplexity:
        """The perplexity behind a measurement, window by window."""
        return self.reading.perplexity(self.window_sums(measurement))

    def knowing(self, measurement: Measurement) -> Floats:
        """The preference for the right answer of every item of knowledge, (n_items,); empty where none is asked for."""
        return self._part(measurement, 2)

    def drifting(self, measurement: Measurement) -> Floats:
        """The drift of every window of the text, summed over its tokens, (n_windows,); empty if not asked for."""
        return self._part(measurement, 3)

    def second_scores(self, measurement: Measurement) -> Floats:
        """What the second scorer gave the continuation of every prompt and sample, (n_prompts, n_samples)."""
        return self._part(measurement, 4).reshape(len(self.prompts), self.answers.n_samples)

    @property
    def _n_second(self) -> int:
        return 0 if self.second is None else len(self.prompts) * self.answers.n_samples

    def _part(self, measurement: Measurement, number: int) -> Floats:
        n_windows = len(self.reading.windows)
        n_scores = len(self.prompts) * self.answers.n_samples
        sizes = (n_scores, n_windows, len(self.knowledge or ()), n_windows * self.has_drift)
        return np.split(np.array(measurement.parts), np.cumsum(sizes))[number]

    def fingerprint(self) -> Mapping[str, Any]:
        """Everything the figures depend on, JSON-ready."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> dict[str, Any]:
        return {
            "model": self.lm.fingerprint(),
            "prompts": self.prompts.fingerprint(),
            **self.answers.fingerprint(),
            "group_mean": self.group_mean,
            "knowledge": None if self.knowledge is None else self.knowledge.fingerprint(),
            "drift": self.has_drift,
            "perplexity": self.reading.fingerprint(),
            "versions": {"fairmend": fairmend.__version__}
            | {package: importlib.metadata.version(package) for package in _PACKAGES},
        }


class PackingEvaluator(Evaluator, Protocol):
    """An evaluator that is best given several masks at a time."""

    @property
    def masks_at_once(self) -> int:
        """How many masks are continued in one batch."""


def _knowing(lm: LanguageModel, knowledge: ChoiceSet) -> Preferences:
    try:
        return Preferences(lm, knowledge)
    except DataError as error:
        raise DataError(
            f"{error}. These items are what a repair must keep: give others (--knowledge FILE), or --knowledge none"
        ) from error
