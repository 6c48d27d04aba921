"""Repairs by soft gates: gains of heads that lower the bias of choices and keep words and knowledge.

The sets that are measured are the gains after every step, up to the first that costs too many words: those that follow
cost more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict

import numpy as np

from fairmend.errors import InputError
from fairmend.evaluation import Measurement
from fairmend.language.backend.batching import Done
from fairmend.language.bias.design import design_of
from fairmend.language.choices.likelihoods import preference_gradients
from fairmend.language.measurement.answers import Preferences
from fairmend.language.measurement.drift import drift_curvature, drift_roots
from fairmend.language.measurement.evaluator import LanguageEvaluator
from fairmend.language.measurement.logbook import Logbook
from fairmend.language.prompts.choices import ChoiceSet
from fairmend.language.repair.floors import Floors
from fairmend.language.repair.settings import RepairSettings
from fairmend.language.repair.soft_gates import Floats, find_gains, gains_along
from fairmend.masks import Mask
from fairmend.runs.parts import Arrays, Keep, Parts, keep_nothing
from fairmend.runs.progress import Stages


def soft_masks(fitted: LanguageEvaluator, floor: Floors, settings: RepairSettings, log: Logbook) -> list[Mask]:
    """The gains after each step, in order: of less and less bias.

    Args:
        fitted: on the items, the knowledge and the text that slopes are taken of.
        floor: of which only the largest perplexity counts here; what its evaluator reads is not read again.
        settings: how many steps.
        log: where the state after every step is kept.

    Raises:
        InputError: prompts to continue, which have no gradient.
        ModelError: the model is broken, or out of memory.
    """
    answers, lm = fitted.answers, fitted.lm
    if not isinstance(answers, Preferences):
        raise InputError("method 'soft' takes gradients of preferences: it repairs --bias, not the toxicity of prompts")
    keep: Keep = keep_nothing
    if log.workers is not None:
        log.workers.remark("gates are fitted in this process: every step follows from the gradients of the one before")
    if log.store is not None:
        work = {"fitted": fitted.fingerprint(), "soft": asdict(settings.soft), "seed": settings.seed}
        keep = Parts(log.store, {"soft gates": work})
    known = None if fitted.knowledge is None else Preferences(lm, fitted.knowledge)

    def effects(gains: Floats, told: Callable[[str], Done | None] = lambda name: None) -> Arrays:
        d, slopes = preference_gradients(lm, answers.encoded, gates=gains, progress=told("slopes of the bias"))
        design, moved = fitted.design, fitted.design.means(slopes.T)
        found = {
            "deviations": design.deviations(design.means(d)),
            "slopes": design.deviations(moved),
            "common_slopes": moved @ design.shares,  # none where groups are compared with 0
            "known": np.array(np.nan),
            "known_slopes": np.zeros(len(gains)),
            "known_by_group": np.zeros(0),
            "halves_slopes": np.zeros((len(gains), 2, 0)),
        }
        if known is not None and fitted.knowledge is not None:
            d, slopes = preference_gradients(lm, known.encoded, gates=gains, progress=told("slopes of knowledge"))
            groups, halves = design_of(fitted.knowledge), _halves(fitted.knowledge)
            known_now, moved = groups.means(d), groups.means(slopes.T)
            found |= {"known": known_now.mean(), "known_slopes": moved.mean(axis=-1)}
            found |= {"known_by_group": known_now, "known_by_group_slopes": moved}
            found |= {"halves": np.tensordot(d, halves, 1), "halves_slopes": np.tensordot(slopes.T, halves, 1)}
        return found

    def along() -> Arrays:
        """Of neurons the gains alone are kept: their slopes would fill a store, and take a minute to find again."""
        roots = drift_roots(lm, tokens, settings.seed, progress=shown.of("curvature of the drift"))
        return {"gains": np.array(gains_along(roots, effects(np.ones(roots.shape[1]), shown.of), steps))}

    tokens, steps = fitted.reading.tokens, settings.soft.steps
    with Stages(log.progress, "soft gates: ") as shown:
        if settings.turns_neurons:
            found: Iterable[Floats] = keep("gains of all units", along)["gains"]
        else:
            heard = shown.of("curvature of the drift")
            curvature = drift_curvature(lm, tokens, settings.seed, progress=heard, keep=keep)
            found = find_gains(curvature, effects, steps=steps, keep=keep, progress=shown.of("steps"))
        masks, reading = [], floor.evaluator.reading
        for mask in map(lm.head_map.mask, found):
            if not floor.admits(Measurement(0.0, reading.perplexity(reading.sums(mask)).value)):
                break
            masks.append(mask)
        return masks


def _halves(knowledge: ChoiceSet) -> Floats:
    """Weights of items in the means of either half of the words of each group, (n_items, 2, n_groups).

    Where a group has a single word, its items are halved; a single item is in both halves.
    """
    words = np.array(knowledge.columns[knowledge.apart[0]] if knowledge.apart else knowledge.keys)
    weights = np.zeros((len(words), 2, len(knowledge.group_names)))
    for group in range(weights.shape[2]):
        rows = np.flatnonzero(knowledge.groups == group)
        numbers = np.unique(words[rows], return_inverse=True)[1]
        numbers = numbers if numbers.max() else np.arange(len(rows))
        for half in (0, 1):
            chosen = rows[numbers % 2 == half] if len(rows) > 1 else rows
            weights[chosen, half, group] = 1 / len(chosen)
    return weights
