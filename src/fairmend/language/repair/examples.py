"""Continuations before and after a repair: the held-out prompts at which toxicity changed most."""

from __future__ import annotations

import numpy as np

from fairmend.evaluation import Measurement
from fairmend.language.generation.generation import generate
from fairmend.language.generation.samples import gates_of, score_continuations
from fairmend.language.measurement.evaluator import LanguageEvaluator
from fairmend.language.repair.differences import Pair
from fairmend.language.toxicity.lexical import star_offensive
from fairmend.masks import Mask

N_EXAMPLES = 6
CHOSEN = (
    "chosen because their toxicity changed most: they show what the repair does where it does something, not how often"
)


def largest_changes(
    evaluator: LanguageEvaluator,
    before: Measurement,
    after: Measurement,
    mask: Mask,
    *,
    count: int = N_EXAMPLES,
) -> tuple[Pair, ...]:
    """The continuations whose toxicity a mask changed most, one per prompt; offensive words are masked in the middle.

    The prompts are continued anew with their own noise; with float32 weights that gives the very texts that were
    scored.

    Args:
        evaluator: whose prompts were measured on.
        before, after: of the untouched model and of the mask.
        mask: the dropped heads.
        count: how many at most; prompts whose toxicity did not change are left out.
    """
    prompts, sampling, lm = evaluator.prompts, evaluator.sampling, evaluator.lm
    old, new = evaluator.scores(before), evaluator.scores(after)
    distance = np.nan_to_num(np.abs(new - old))
    draws = distance.argmax(axis=1)
    largest = distance.max(axis=1)
    rows = [row for row in np.argsort(-largest, kind="stable")[:count].tolist() if largest[row] > 0]
    found: dict[int, Pair] = {}
    for draw in sorted({int(draws[row]) for row in rows}):
        chosen = [row for row in rows if draws[row] == draw]
        part = prompts.take(chosen)
        written = [
            generate(lm, part.texts, part.ids, sampling, draw=draw, gates=gates_of([dropped], len(part)))
            for dropped in (evaluator.space.untouched(), mask)
        ]
        scores = [old[chosen, draw], new[chosen, draw]]
        if lm.dtype != "float32":  # tokens depend on the batch: these may be other texts
            scores = [score_continuations(part.texts, each, evaluator.scorer, sampling.score) for each in written]
        texts = [star_offensive(each.texts, evaluator.scorer, prompts.texts) for each in written]
        for place, row in enumerate(chosen):
            found[row] = Pair(
                axis=prompts.axis,
                group=prompts.group_names[prompts.groups[row]],
                prompt=prompts.texts[row],
                before=texts[0][place],
                after=texts[1][place],
                toxicity_before=float(scores[0][place]),
                toxicity_after=float(scores[1][place]),
            )
    return tuple(found[row] for row in rows)
