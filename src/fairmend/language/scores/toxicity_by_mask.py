"""Toxicity of a model's continuations under each of several masks, prompt by prompt.

Three ways lead to the same table: generating with every mask (here), re-weighting continuations of the unmasked model
(`reweighting`), and a first-order estimate (`first_order`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fairmend.language.backend.batching import Done
from fairmend.language.generation.generation import generate
from fairmend.language.generation.samples import draw_sample, score_continuations
from fairmend.language.models.models import LanguageModel
from fairmend.language.prompts.prompts import PromptSet
from fairmend.language.protocols import Sampling
from fairmend.language.scores.mask_runs import checked_gates
from fairmend.language.toxicity.scorer import Scorer
from fairmend.runs.parts import Arrays, Keep, keep_nothing, within

Floats = npt.NDArray[np.float64]

GENERATED, REWEIGHTED, FIRST_ORDER, EXACT = "generated", "reweighted", "first-order", "exact"

# Enough rows for full batches of every prompt length; what fits at once is generate's business.
_ROWS_PER_CALL_ON_CPU = 512
_ROWS_PER_CALL_ON_GPU = 4096


@dataclass(frozen=True, eq=False)
class MaskToxicity:
    """What each mask does to the toxicity of every prompt's continuations.

    The mean of a row over the prompts of a group estimates the group's mean toxicity under the mask. The entries of
    one column are of the same prompt with the same noise, so that masks are compared in pairs; entries that were not
    generated but estimated may lie outside of [0, 1].

    Attributes:
        before: without a mask, averaged over samples, `(n_prompts,)`.
        without: with each mask, `(n_masks, n_prompts)`. NaN where a mask broke the model.
        prompts: the prompts and their groups.
        methods: how each mask was measured, `n_masks` of "generated", "reweighted" and "first-order".
        effective_sizes: continuations that effectively speak for each mask and group, `(n_masks, n_groups)`; those of
            a generated mask all do.
        n_samples: continuations per prompt.
        scorer: name of the toxicity scorer.
    """

    before: Floats
    without: Floats
    prompts: PromptSet
    methods: tuple[str, ...]
    effective_sizes: Floats
    n_samples: int
    scorer: str

    @property
    def n_groups(self) -> int:
        """Number of groups."""
        return len(self.prompts.group_names)

    @property
    def method(self) -> str:
        """The method of all masks, or how many were measured by which."""
        counts = {method: self.methods.count(method) for method in dict.fromkeys(self.methods)}
        if len(counts) == 1:
            return self.methods[0]
        return ", ".join(f"{count} {method}" for method, count in counts.items())


def generated_toxicity(
    lm: LanguageModel,
    prompts: PromptSet,
    scorer: Scorer,
    gates: npt.ArrayLike | Tensor | None = None,
    sampling: Sampling | None = None,
    *,
    progress: Done | None = None,
    keep: Keep = keep_nothing,
) -> MaskToxicity:
    """Generate with every mask, with the same noise for the same prompt, several masks in one batch.

    Args:
        lm: the model; masks that are already on it stay in force.
        prompts: what to continue.
        scorer: gives the toxicity.
        gates: `(n_masks, n_heads)`; every head alone when not given.
        sampling: the defaults when not given.
        progress: told how many masks are done.
        keep: keeps what is generated.

    Raises:
        InputError: gates of another shape, or a scorer that must not see prompts is asked to.
        ModelError: the unmasked model's logits are not finite, a prompt does not fit, or out of memory.
    """
    sampling = sampling or Sampling()
    masks = checked_gates(lm, gates)
    before = draw_sample(lm, prompts, scorer, sampling, keep=within(keep, "without a mask"))
    without = generate_masked(lm, prompts, scorer, masks, sampling, progress, keep)
    sizes = np.bincount(prompts.groups, minlength=len(prompts.group_names)) * float(sampling.n_samples)
    return MaskToxicity(
        before=before.toxicity.mean(axis=1),
        without=without,
        prompts=prompts,
        methods=(GENERATED,) * len(masks),
        effective_sizes=np.tile(sizes, (len(masks), 1)),
        n_samples=sampling.n_samples,
        scorer=scorer.name,
    )


def generate_masked(
    lm: LanguageModel,
    prompts: PromptSet,
    scorer: Scorer,
    masks: Tensor,
    sampling: Sampling,
    progress: Done | None = None,
    keep: Keep = keep_nothing,
) -> Floats:
    """Toxicity of each prompt under each mask, averaged over samples, `(n_masks, n_prompts)`."""
    n = len(prompts)
    rows = _ROWS_PER_CALL_ON_GPU if lm.device.type == "cuda" else _ROWS_PER_CALL_ON_CPU
    together = max(1, rows // n)

    starts = range(0, len(masks), together)
    parts = {f"{len(masks[start : start + together])} masks from {start} on": start for start in starts}

    def told(name: str) -> None:
        if progress is not None:
            progress(min(parts[name] + together, len(masks)), len(masks))

    work = partial(_toxicity, lm, prompts, scorer, sampling)
    gates = {name: (masks[start : start + together].numpy(),) for name, start in parts.items()}
    made = keep.all(work, gates, told)
    return np.concatenate([made[name]["toxicity"] for name in parts])


def _toxicity(
    lm: LanguageModel, prompts: PromptSet, scorer: Scorer, sampling: Sampling, masks: npt.NDArray[np.float32]
) -> Arrays:
    """Toxicity of each prompt under masks that share batches."""
    part, n = torch.from_numpy(masks), len(prompts)
    means = np.zeros((len(part), n))
    texts: Sequence[str] = prompts.texts * len(part)
    ids = np.tile(prompts.ids, len(part))
    gates = part.repeat_interleave(n, dim=0) if len(part) > 1 else part[0]
    for number in range(sampling.n_samples):
        with torch.inference_mode():
            draw = generate(lm, texts, ids, sampling, draw=number, gates=gates)
        scores = score_continuations(texts, draw, scorer, sampling.score)
        means += scores.reshape(-1, n) / sampling.n_samples
    return {"toxicity": means}
