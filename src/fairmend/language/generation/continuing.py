"""The toxicity of one or many masks' continuations, sample by sample, several masks packed into one batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fairmend.language.backend.batching import Rows
from fairmend.language.generation.samples import draw_continuations, score_continuations
from fairmend.language.models.models import LanguageModel
from fairmend.language.prompts.prompts import PromptSet
from fairmend.language.protocols import Sampling
from fairmend.language.toxicity.scorer import Scorer, check_scores_prompts
from fairmend.masks import Mask

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]


def toxicity_of_parts(
    lm: LanguageModel,
    prompts: PromptSet,
    scorer: Scorer,
    parts: Sequence[tuple[Mask, Codes]],
    sampling: Sampling | None = None,
    *,
    batch_size: Rows = "auto",
) -> list[Floats]:
    """Score the continuations of some prompts under each mask, all of them in one batch.

    Every mask sees the same noise. With float32 weights the scores of a mask do not depend on the others.

    Args:
        lm: the model.
        prompts: what to continue.
        scorer: gives the toxicity.
        parts: masks of the model's heads, each with the numbers of the prompts to continue under it; not empty.
        sampling: the defaults when not given.
        batch_size: continuations at once.

    Returns:
        One array of shape (n_prompts of the part, n_samples) per part; NaN where the logits were.

    Raises:
        ModelError: a mask of another model, prompts that do not fit the context, out of memory.
        InputError: a scorer that must not see prompts is asked to.
    """
    sampling = sampling or Sampling()
    check_scores_prompts(scorer, sampling.score)
    for mask, _ in parts:
        lm.head_map.check(mask)
    sizes = [len(rows) for _, rows in parts]
    chosen = np.concatenate([rows for _, rows in parts])
    texts, ids = [prompts.texts[row] for row in chosen.tolist()], prompts.ids[chosen]
    gates = gates_of([mask for mask, _ in parts], sizes)
    scores = np.empty((len(texts), sampling.n_samples))
    for number in range(sampling.n_samples):
        draw = draw_continuations(sampling, lm, texts, ids, number, gates, batch_size)
        scores[:, number] = score_continuations(texts, draw, scorer, sampling.score)
    return np.split(scores, np.cumsum(sizes)[:-1])


def gates_of(masks: Sequence[Mask], n_prompts: int | Sequence[int]) -> npt.NDArray[np.float32] | None:
    """Gates of one mask for the whole batch, or of each row for several; None where nothing is dropped.

    Args:
        masks: each for as many rows in a row as `n_prompts` says.
        n_prompts: of every mask, or of each.
    """
    if all(mask.is_untouched for mask in masks):
        return None
    kept = np.stack([~mask.dropped() for mask in masks]).astype(np.float32)
    return kept[0] if len(masks) == 1 else np.repeat(kept, n_prompts, axis=0)
