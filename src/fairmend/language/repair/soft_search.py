"""Repairs by soft gates: gains of heads that lower the bias of choices and keep words and knowledge.

Gradients see one part of the search half, and the gains to keep are chosen on the other: the sets that are measured are
the gains at some steps along the way.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from fairmend.errors import InputError
from fairmend.language.choices.likelihoods import differentiable_preferences
from fairmend.language.measurement.answers import Preferences
from fairmend.language.measurement.drift import drift
from fairmend.language.measurement.evaluator import LanguageEvaluator
from fairmend.language.measurement.logbook import Logbook
from fairmend.language.measurement.perplexity import Window
from fairmend.language.repair.settings import RepairSettings
from fairmend.language.repair.soft_gates import find_gains
from fairmend.masks import Mask
from fairmend.runs.parts import Keep, Parts, keep_nothing
from fairmend.runs.progress import Stages

CHECKPOINTS = 6


def soft_masks(fitted: LanguageEvaluator, settings: RepairSettings, log: Logbook) -> list[Mask]:
    """The gains after some of the gradient steps, in order.

    Args:
        fitted: on the items and the text that gradients see.
        settings: how many steps, on what.
        log: where the state after every step is kept.

    Raises:
        InputError: prompts to continue, which have no gradient.
        ModelError: the model is broken, or out of memory.
    """
    answers, soft, lm = fitted.answers, settings.soft, fitted.lm
    if not isinstance(answers, Preferences):
        raise InputError("method 'soft' takes gradients of preferences: it repairs --bias, not the toxicity of prompts")
    keep: Keep = keep_nothing
    if log.workers is not None:
        log.workers.remark("gates are fitted in this process: every step follows from the gradients of the one before")
    if log.store is not None:
        keep = Parts(log.store, {"soft gates": {"fitted": fitted.fingerprint(), "settings": settings.to_json()}})
    known = None if fitted.knowledge is None else Preferences(lm, fitted.knowledge)
    knew = None if known is None else keep("knowledge", lambda: {"values": known.plainly()[:, 0]})["values"]
    plain = keep("bias", lambda: {"values": answers.plainly()[:, 0]})["values"]
    design, tokens = fitted.design, fitted.reading.tokens
    before = max(float(design.bias(design.means(plain))), 1e-9)
    members = [np.flatnonzero(design.codes == code) for code in range(len(design.names))]

    def terms(gates: Tensor, rng: np.random.Generator) -> Iterator[Tensor]:
        each = max(1, soft.items // len(members))
        rows = np.concatenate([rng.choice(group, min(each, len(group)), replace=False) for group in members])
        part = design.take(rows)
        weights = torch.from_numpy(part.members / part.members.sum(axis=0)).float()
        means = differentiable_preferences(lm, answers.encoded, rows, gates).cpu() @ weights
        apart = (means @ torch.from_numpy(part.shares).float()) - means
        yield (apart.abs().sum() / before) ** 2
        length = min(soft.tokens, len(tokens), lm.context)
        starts = rng.integers(len(tokens) - length + 1, size=max(1, soft.tokens // length)).tolist()
        read = [Window(start, start + length, start + 1) for start in starts]
        yield soft.drift_weight * drift(lm, tokens, read, gates)
        if known is not None and knew is not None:
            chosen = rng.choice(len(knew), min(soft.items // 2, len(knew)), replace=False)
            now = differentiable_preferences(lm, known.encoded, chosen, gates).cpu()
            lost = (torch.from_numpy(knew[chosen]).float() - now).clamp(min=0)
            yield soft.knowledge_weight * (lost**2).mean() / max(float(knew.mean()) ** 2, 1e-9)

    found = []
    every = max(1, soft.steps // CHECKPOINTS)
    with Stages(log.progress, "soft gates: ") as shown:
        gains = find_gains(
            lm.head_map.n_heads,
            terms,
            steps=soft.steps,
            rate=soft.rate,
            seed=settings.seed,
            keep=keep,
            progress=shown.of("gradient steps"),
        )
        for step, values in enumerate(gains, start=1):
            if step % every == 0 or step == soft.steps:
                found.append(lm.head_map.mask(values))
    return found
