"""The toxicity of one or many masks' continuations, sample by sample, several masks packed into one batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fairmend.language.batching import Rows
from fairmend.language.models import LanguageModel
from fairmend.language.prompts import PromptSet
from fairmend.language.samples import Sampling, score_continuations
from fairmend.language.toxicity import Scorer, check_scores_prompts
from fairmend.masks import Mask

Floats = npt.NDArray[np.float64]


def toxicity_of_masks(
    lm: LanguageModel,
    prompts: PromptSet,
    scorer: Scorer,
    masks: Sequence[Mask],
    sampling: Sampling | None = None,
    *,
    batch_size: Rows = "auto",
) -> Floats:
    """Score the continuations of all prompts under every mask.

    Every mask sees the same noise. With float32 weights the scores of a mask do not depend on the others.

    Args:
        lm: the model.
        prompts: what to continue.
        scorer: gives the toxicity.
        masks: of the model's heads.
        sampling: the defaults when not given.
        batch_size: prompts times masks at once.

    Returns:
        Shape (n_masks, n_prompts, n_samples); NaN where the logits were.

    Raises:
        ModelError: a mask of another model, prompts that do not fit the context, out of memory.
        InputError: a scorer that must not see prompts is asked to.
    """
    sampling = sampling or Sampling()
    check_scores_prompts(scorer, sampling.score)
    for mask in masks:
        lm.head_map.check(mask)
    n, texts = len(prompts), prompts.texts * len(masks)
    ids = np.tile(prompts.ids, len(masks))
    scores = np.empty((len(masks), n, sampling.n_samples))
    for number in range(sampling.n_samples):
        draw = sampling.draw(lm, texts, ids, number, gates_of(masks, n), batch_size)
        scores[:, :, number] = score_continuations(texts, draw, scorer, sampling.score).reshape(len(masks), n)
    return scores


def gates_of(masks: Sequence[Mask], n_prompts: int) -> npt.NDArray[np.float32] | None:
    """Gates of one mask for the whole batch, or of each row for several; None where nothing is dropped."""
    if all(mask.is_untouched for mask in masks):
        return None
    kept = np.stack([~mask.dropped() for mask in masks]).astype(np.float32)
    return kept[0] if len(masks) == 1 else np.repeat(kept, n_prompts, axis=0)
