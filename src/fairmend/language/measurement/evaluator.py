"""What a set of dropped heads does to a language model: the bias of its continuations and its perplexity."""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from time import perf_counter
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

import fairmend
from fairmend.errors import InputError
from fairmend.evaluation import Evaluator, Figure, Figures, Measurement
from fairmend.language.bias.bias import bias, bias_standard_error
from fairmend.language.bias.records import BiasProtocol
from fairmend.language.generation.generation import encode_prompts
from fairmend.language.generation.samples import toxicity_of_parts
from fairmend.language.measurement.masked_perplexity import Reading
from fairmend.language.measurement.perplexity import Perplexity
from fairmend.language.models.models import LanguageModel
from fairmend.language.prompts.prompts import PromptSet
from fairmend.language.protocols import GroupMean, Sampling
from fairmend.language.toxicity.scorer import Scorer, check_scores_prompts
from fairmend.masks import Mask, Space

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]

_N_BOOT = 200
_FIXED_ROWS = {"cpu": 128}  # of "auto", where tokens depend on the batch (bfloat16, float16)
_FIXED_ROWS_ON_GPU = 512
_PACKAGES = ("torch", "transformers", "tokenizers", "numpy")


class LanguageEvaluator:
    """Measures masks of the attention heads of one language model, on prompts of one axis and one text.

    Bias: the toxicity of the continuations compared between groups, with noise that belongs to the prompt, so that all
    masks have the same luck. Utility: perplexity, lower is better. The parts of a measurement hold the score of every
    continuation and the log-likelihood of every window of the text: enough to judge any two masks in pairs, see
    `scores` and `perplexity`.

    With float32 weights several masks are packed into one batch when there are few prompts. In bfloat16 and float16
    tokens depend on the batch: masks are then measured one at a time, in batches of a fixed size that is part of the
    fingerprint.

    Args:
        lm: the model; it is left as it is.
        prompts: of one axis, in groups.
        reading: the text; one `Reading` may serve several evaluators.
        scorer: of toxicity.
        sampling: how prompts are continued, and what of it is scored.
        group_mean: what a group is compared with, see `BiasProtocol`.
        space: masks that may be measured; all by default.

    Raises:
        InputError: a scorer that the protocol does not suit, or a reading or space of another model.
        DataError: prompts without two groups.
    """

    def __init__(
        self,
        lm: LanguageModel,
        prompts: PromptSet,
        reading: Reading,
        scorer: Scorer,
        *,
        sampling: Sampling | None = None,
        group_mean: GroupMean = "unweighted",
        space: Space | None = None,
    ) -> None:
        self.lm = lm
        self.prompts = prompts
        self.reading = reading
        self.scorer = scorer
        self.sampling = sampling or Sampling()
        self.protocol = BiasProtocol(group_mean, self.sampling.score)
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
        check_scores_prompts(scorer, self.protocol.score)
        # Prompts that the model cannot read are refused now, not when their turn comes.
        encode_prompts(lm, prompts.texts, self.sampling)
        self._continuing = lm
        if lm.dtype != "float32" and lm.batch_size == "auto":
            self._continuing = lm.with_batch_size(_FIXED_ROWS.get(lm.device.type, _FIXED_ROWS_ON_GPU))

    def on(self, prompts: PromptSet, reading: Reading, space: Space | None = None) -> LanguageEvaluator:
        """The same protocol on other prompts and another text.

        Raises:
            InputError, DataError: see the class.
        """
        return LanguageEvaluator(
            self.lm,
            prompts,
            reading,
            self.scorer,
            sampling=self.sampling,
            group_mean=self.protocol.group_mean,
            space=self._space if space is None else space,
        )

    @property
    def space(self) -> Space:
        """The masks that can be measured."""
        return self._space

    @cached_property
    def figures(self) -> Figures:
        """What the measurements mean."""
        prompts, samples = len(self.prompts), self.sampling.n_samples
        made = f"{self.protocol}, by {self.scorer.name}; {_described(self.sampling)}"
        return Figures(
            bias=Figure(f"{self.prompts.axis} bias", "lower", made),
            utility=Figure("perplexity", "lower", self.reading.protocol.name),
            parts=(
                *(f"toxicity of prompt {number // samples}" for number in range(prompts * samples)),
                *(f"log-likelihood of window {number}" for number in range(len(self.reading.windows))),
            ),
        )

    @property
    def masks_at_once(self) -> int:
        """How many masks are continued in one batch."""
        return self.packed(len(self.prompts))

    def packed(self, n_prompts: int) -> int:
        """How many masks are continued in one batch with so many prompts each."""
        if self.lm.dtype != "float32":
            return 1
        rows = self.lm.batch_size if self.lm.batch_size != "auto" else 128 if self.lm.device.type == "cpu" else 1024
        return max(1, int(rows) // n_prompts)

    def continued(self, parts: Sequence[tuple[Mask, Codes]]) -> list[Floats]:
        """Toxicity of some prompts' continuations under each mask, see `toxicity_of_parts`."""
        return toxicity_of_parts(self._continuing, self.prompts, self.scorer, parts, self.sampling)

    def measure(self, masks: Sequence[Mask]) -> list[Measurement]:
        """One measurement per mask, in order; NaN where the mask broke the model.

        Raises:
            ModelError: a mask of another model, prompts that do not fit the context, out of memory.
        """
        made: list[Measurement] = []
        for start in range(0, len(masks), self.masks_at_once):
            made += self._measure(masks[start : start + self.masks_at_once])
        return made

    def _measure(self, masks: Sequence[Mask]) -> Iterator[Measurement]:
        begun = perf_counter()
        rows, numbers = np.arange(len(self.prompts)), range(len(self.reading.windows))
        scores = self.continued([(mask, rows) for mask in masks])
        sums = [self.reading.sums(mask) for mask in masks]
        seconds = (perf_counter() - begun) / len(masks)
        for found, windows in zip(scores, sums, strict=True):
            yield self.measurement(rows, found, numbers, windows, seconds)

    def measurement(
        self, rows: Codes, scores: Floats, numbers: Sequence[int], windows: Floats, seconds: float
    ) -> Measurement:
        """The measurement that a mask's scores on some prompts and windows amount to.

        Args:
            rows: numbers of the prompts, every group among them, (n_rows,).
            scores: toxicity of their continuations, (n_rows, n_samples).
            numbers: of the windows that were read.
            windows: their summed log-likelihoods, (n_numbers,).
            seconds: how long it took.

        Returns:
            Parts are NaN for prompts and windows that are not among those given.
        """
        per_prompt, groups, n_groups = scores.mean(axis=1), self.prompts.groups[rows], len(self.prompts.group_names)
        read = self.reading.perplexity(windows, numbers)
        all_scores = np.full((len(self.prompts), self.sampling.n_samples), math.nan)
        all_scores[rows] = scores
        all_windows = np.full(len(self.reading.windows), math.nan)
        all_windows[list(numbers)] = windows
        value, error = math.nan, math.nan
        if bool(np.isfinite(per_prompt).all()):
            value = float(bias(per_prompt, groups, n_groups, self.protocol.group_mean))
            error = float(
                bias_standard_error(
                    per_prompt,
                    groups,
                    n_groups,
                    rng=np.random.default_rng(self.sampling.seed),  # the same resamples for every mask
                    group_mean=self.protocol.group_mean,
                    n_boot=_N_BOOT,
                )
            )
        return Measurement(
            bias=value,
            utility=read.value,
            parts=(*all_scores.ravel().tolist(), *all_windows.tolist()),
            n=len(per_prompt),
            bias_se=error,
            utility_se=read.standard_error,
            seconds=seconds,
        )

    def scores(self, measurement: Measurement) -> Floats:
        """Toxicity of every continuation behind a measurement, (n_prompts, n_samples)."""
        n = len(self.prompts) * self.sampling.n_samples
        return np.array(measurement.parts[:n]).reshape(len(self.prompts), self.sampling.n_samples)

    def window_sums(self, measurement: Measurement) -> Floats:
        """Summed log-likelihood of every window of the text behind a measurement, (n_windows,)."""
        return np.array(measurement.parts[len(self.prompts) * self.sampling.n_samples :])

    def perplexity(self, measurement: Measurement) -> Perplexity:
        """The perplexity behind a measurement, window by window."""
        return self.reading.perplexity(self.window_sums(measurement))

    def fingerprint(self) -> Mapping[str, Any]:
        """Everything the figures depend on, JSON-ready."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "model": self.lm.fingerprint(),
            "prompts": self.prompts.fingerprint(),
            "sampling": asdict(self.sampling),
            "scorer": {"name": self.scorer.name, **self.scorer.fingerprint()},
            "group_mean": self.protocol.group_mean,
            "perplexity": self.reading.fingerprint(),
            "versions": {"fairmend": fairmend.__version__}
            | {package: importlib.metadata.version(package) for package in _PACKAGES},
        }
        if self.lm.dtype != "float32":
            found["batch_size"] = self._continuing.batch_size
        return found


class PackingEvaluator(Evaluator, Protocol):
    """An evaluator that is best given several masks at a time."""

    @property
    def masks_at_once(self) -> int:
        """How many masks are continued in one batch."""


def _described(sampling: Sampling) -> str:
    """What stands beside every bias that was measured on such continuations."""
    cut = f", prompts cut at {sampling.max_prompt_tokens} tokens" if sampling.max_prompt_tokens else ""
    top = "" if sampling.top_k is None else f" from the {sampling.top_k} most probable tokens"
    heat = "" if sampling.temperature == 1 else f" at temperature {sampling.temperature:g}"
    return f"{sampling.n_samples} sample(s) of {sampling.new_tokens} new tokens{top}{heat}{cut}"
