"""What each head is worth to a repair: the scores that its method ranks by, found once per run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fairmend.errors import RunError
from fairmend.evaluation import Measurement, digest
from fairmend.language.bias.design import design_of
from fairmend.language.choices.likelihoods import preference_gradients
from fairmend.language.heads.heads import HeadMap
from fairmend.language.measurement.answers import Preferences
from fairmend.language.measurement.evaluator import LanguageEvaluator
from fairmend.language.measurement.logbook import Logbook, in_turn
from fairmend.language.repair.settings import SOFT, RepairSettings
from fairmend.language.repair.subject import Subject
from fairmend.language.scores.ablation import MaskLosses
from fairmend.language.scores.first_order import first_order_losses
from fairmend.language.scores.head_scores import BiasScores, HeadScores, LossScores, head_scores, origin_of, score_heads
from fairmend.language.scores.magnitude import head_magnitudes
from fairmend.language.scores.toxicity_by_mask import GENERATED, MaskToxicity
from fairmend.language.scores.validity import Validity, sum_validity, validity_in_words
from fairmend.masks import Mask
from fairmend.records import built, plain
from fairmend.runs.parts import Keep, Parts, keep_nothing
from fairmend.runs.progress import Stages
from fairmend.search import PruningRule

Floats = npt.NDArray[np.float64]

_EVENT = "head ranking"
_CONTEXT = "scores"
_NOWHERE = Logbook()


@dataclass(frozen=True, eq=False)
class HeadRanking:
    """The scores of every head.

    Attributes:
        scores: by the names of `fairmend.search.pruning_rules.NEEDS`, each (n_heads,).
        table: effects on perplexity and bias with their errors and reliability, where the method reads them.
        notes: what a reader should know.
        validity: how far the scores order heads, and sets of heads, as measuring does, where both were done.
    """

    scores: Mapping[str, Floats]
    table: HeadScores | None = None
    notes: tuple[str, ...] = ()
    validity: tuple[Validity, ...] = ()

    @property
    def remarks(self) -> tuple[str, ...]:
        """How valid the ranking is, in a line, and the notes."""
        return (*filter(None, [validity_in_words(self.validity)]), *self.notes)

    @classmethod
    def of(cls, table: HeadScores, axis: str, needs: tuple[str, ...]) -> HeadRanking:
        """The ranking by a table's effects on one axis, with a warning where it is mostly noise."""
        read: dict[str, tuple[str, LossScores | BiasScores]] = {}
        if "loss" in needs:
            read["loss"] = ("perplexity", table.loss)
        if "bias" in needs:
            read["bias"] = (f"bias, {axis}", table.axis(axis))
        said = ((name, found.reliability.warning) for name, found in read.values())
        notes = tuple(f"{name}: {warning}" for name, warning in said if warning)
        scores = {name: found.without for name, (_, found) in read.items()}
        return cls(scores, table, notes)._with(
            found.validity for _, found in read.values() if found.validity is not None
        )

    def held_against(self, axis: str, *measured: Iterable[tuple[Mask, Measurement]]) -> HeadRanking:
        """The same with what measured sets say of the sums of its effects; as it is where it has no effects.

        Args:
            axis: name of the axis that was measured.
            measured: sets of heads with their figures, the empty set among them; those measured otherwise (on fewer
                prompts) apart.
        """
        if self.table is None:
            return self
        changes: dict[str, list[tuple[Mask, float]]] = {"bias": [], "loss": []}
        for sets in map(dict, measured):
            for before in (made for mask, made in sets.items() if mask.is_untouched):
                for mask, made in sets.items():
                    with np.errstate(all="ignore"):
                        changes["loss"].append((mask, float(np.log(made.utility) - np.log(before.utility))))
                    changes["bias"].append((mask, made.bias - before.bias))
        found = []
        for name in self.scores:
            effect = self.table.loss.effect if name == "loss" else self.table.axis(axis).effect
            found.append(sum_validity(effect, changes[name], name))
        return self._with(found)

    def _with(self, validity: Iterable[Validity]) -> HeadRanking:
        found = tuple(validity)
        warnings = (each.warning for each in found)
        notes = (*self.notes, *(warning for warning in warnings if warning))
        return replace(self, validity=(*self.validity, *found), notes=notes)


def rank_heads(
    evaluator: LanguageEvaluator,
    settings: RepairSettings,
    log: Logbook = _NOWHERE,
    rules: Sequence[PruningRule] = (),
) -> HeadRanking:
    """Find the scores that the method of `settings` needs.

    Args:
        evaluator: on the search half; its sampling and reading are those that heads are scored with.
        settings: method and scoring.
        log: where the scores are kept; those that an interrupted run has found are not found again.
        rules: what makes sets of the scores, if not the method itself: with screened losses, the heads that they drop
            are ablated.

    Raises:
        ModelError: the model is broken, or out of memory.
        DataError, InputError: prompts that are too few, or settings that do not suit them.
    """
    asked = {
        "fingerprint": evaluator.fingerprint(),
        "needs": list(settings.needs),
        "bias_scores": settings.bias_method,
        "loss_scores": settings.loss_scores,
        "seed": settings.seed,
    }
    screening: Sequence[PruningRule] = ()
    if settings.loss_scores == "screened" and "loss" in settings.needs:
        own = settings.starting_rules if settings.method == "active" else lambda _: settings.finalists()
        screening = rules or own(evaluator.space)
        asked["rules"] = [rule.to_json() for rule in screening]
    key = digest(asked)
    for event in [] if log.store is None else log.store.events(_EVENT):
        try:
            if event.payload["key"] == key:
                return built(event.payload["ranking"], HeadRanking)
        except (KeyError, ValueError) as error:
            raise RunError(
                f"the ranking of heads that the run's folder keeps is none ({type(error).__name__}: {error}): it was "
                "changed or damaged. Start again with another --out"
            ) from error
    ranking = _rank(evaluator, settings, screening, log)
    if log.store is not None:
        log.store.record(_EVENT, {"key": key, "ranking": plain(ranking)})
    return ranking


def given_ranking(subject: Subject, scores: HeadScores | None, settings: RepairSettings) -> HeadRanking | None:
    """The ranking by given scores, None when there are none or the method reads others.

    Raises:
        DataError: scores of another model, or of prompts or a text that are not those searched with.
        InputError: scores without the axis.
    """
    if scores is None or not {"loss", "bias"} & set(settings.needs):
        return None
    scores.check(subject.lm.head_map)
    axis = subject.prompts.axis
    if "bias" in settings.needs:
        scores.axis(axis)
    scores.require_origin(origin_of(subject.lm, subject.texts[0], [subject.halves(settings)[0]]))
    return HeadRanking.of(scores, axis, settings.needs)


def knowledge_effects(evaluator: LanguageEvaluator, log: Logbook = _NOWHERE) -> Floats:
    """What the mean preference for the right answer gains without each head, to first order, nats, (n_heads,).

    Args:
        evaluator: whose knowledge it is.
        log: where gradients are kept.

    Raises:
        ModelError: out of memory.
    """
    items, lm = evaluator.knowledge, evaluator.lm
    assert items is not None
    keep: Keep = keep_nothing
    if log.store is not None:
        keep = Parts(log.store, {"knowledge": {"model": lm.fingerprint(), "items": items.fingerprint()}})
    with Stages(log.progress, "heads one by one: ") as shown:
        heard = shown.of("knowledge")
        _, slopes = preference_gradients(lm, Preferences(lm, items).encoded, progress=heard, keep=keep)
    effects: Floats = -design_of(items).means(slopes.T).mean(axis=-1)
    return effects


def sparing(evaluator: LanguageEvaluator, settings: RepairSettings, log: Logbook = _NOWHERE) -> LanguageEvaluator:
    """The same evaluator, of masks that never drop the heads which carry most of what must stay known."""
    count = round(settings.spare_knowledge * evaluator.space.n_units)
    if evaluator.knowledge is None or not count or settings.method == SOFT:
        return evaluator
    carrying = np.argsort(knowledge_effects(evaluator, log), kind="stable")[:count].tolist()
    return evaluator.on(evaluator.prompts, evaluator.reading, replace(evaluator.space, frozen=frozenset(carrying)))


def gradient_scores(losses: MaskLosses, head_map: HeadMap) -> Floats:
    """FASP's gradient baseline: sum over windows of |dLoss/dgate|, L2-normalised per layer, (n_heads,).

    Args:
        losses: from `first_order_losses`, whose effects are the gradients.
        head_map: tells the layers.
    """
    sums = np.abs(losses.without - losses.before).sum(axis=1)
    bounds = np.cumsum([site.n_heads for site in head_map.sites])[:-1]
    parts = [part / (float(np.linalg.norm(part)) or 1.0) for part in np.split(sums, bounds)]
    scores: Floats = np.concatenate(parts)
    return scores


def _rank(
    evaluator: LanguageEvaluator, settings: RepairSettings, rules: Sequence[PruningRule], log: Logbook
) -> HeadRanking:
    lm, needs, reading = evaluator.lm, settings.needs, evaluator.reading
    if "magnitude" in needs:
        found = head_magnitudes(lm.model, lm.head_map)
        note = f"only the output projection counts in {', '.join(found.without_rows)}"
        return HeadRanking({"magnitude": found.values}, notes=(note,) if found.without_rows else ())
    if "gradient" in needs:
        with Stages(log.progress, "heads one by one: ") as shown:
            losses = first_order_losses(lm, reading.tokens, reading.protocol, progress=shown.of("gradients"))
        return HeadRanking({"gradient": gradient_scores(losses, lm.head_map)})
    if not needs:
        return HeadRanking({})
    axis = evaluator.prompts.axis
    is_sampled = not isinstance(evaluator.answers, Preferences)
    if "bias" in needs and settings.bias_method == "generated" and is_sampled:
        return HeadRanking.of(_generated(evaluator, settings, log), axis, needs)
    with Stages(log.progress, "heads one by one: ") as shown:
        table = score_heads(
            lm,
            reading.tokens,
            reading.protocol,
            [evaluator.answers] if "bias" in needs else [],
            loss_method=settings.loss_scores if "loss" in needs else "first-order",
            bias_method=settings.bias_method,
            group_mean=evaluator.group_mean,
            seed=settings.seed,
            rules=rules,
            progress=shown,
            store=log.store,
            workers=log.workers,
        )
    return HeadRanking.of(table, axis, needs)


def _generated(evaluator: LanguageEvaluator, settings: RepairSettings, log: Logbook) -> HeadScores:
    """Every head alone, continued and read for good: FASP's own way. Kept head by head, because it takes hours."""
    space, prompts, reading = evaluator.space, evaluator.prompts, evaluator.reading
    untouched = space.untouched()
    alone = [untouched.flip(unit) for unit in range(space.n_units)]
    runner = log.runner(_CONTEXT, evaluator)
    runner.finish(*in_turn(evaluator, alone))  # without all of them there is no ranking
    collection = runner.collection
    before, singles = collection[untouched], [collection[mask] for mask in alone]
    losses = MaskLosses(
        before=-evaluator.window_sums(before),
        without=-np.stack([evaluator.window_sums(made) for made in singles]),
        counts=np.array([window.shape[1] for window in reading.windows], dtype=np.float64),
        protocol=reading.protocol,
        method="exact",
    )
    sizes = np.bincount(prompts.groups) * float(evaluator.answers.n_samples)
    table = MaskToxicity(
        before=evaluator.scores(before).mean(axis=1),
        without=np.stack([evaluator.scores(made).mean(axis=1) for made in singles]),
        prompts=prompts,
        methods=(GENERATED,) * len(singles),
        effective_sizes=np.tile(sizes, (len(singles), 1)),
        n_samples=evaluator.answers.n_samples,
        scorer=evaluator.answers.scorer,
    )
    return head_scores(evaluator.lm.head_map, losses, [table], evaluator.group_mean, settings.seed)
