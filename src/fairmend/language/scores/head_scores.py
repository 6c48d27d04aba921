"""The table of head scores: what happens to perplexity and to the bias of each axis without each head."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
from torch import Tensor

from fairmend.errors import DataError, InputError
from fairmend.evaluation import array_digest, digest
from fairmend.language.backend.batching import Done
from fairmend.language.generation.samples import draw_sample
from fairmend.language.heads.heads import HeadMap
from fairmend.language.measurement.answers import Answers, Preferences, Toxicity
from fairmend.language.measurement.perplexity import PerplexityProtocol
from fairmend.language.measurement.texts import Text
from fairmend.language.models.models import LanguageModel
from fairmend.language.prompts.prompts import PromptSet
from fairmend.language.protocols import BiasMethod, LossMethod, Reference
from fairmend.language.scores.ablation import MaskLosses, masked_losses
from fairmend.language.scores.bias_effects import bias_effects
from fairmend.language.scores.first_order import first_order_losses, first_order_toxicity
from fairmend.language.scores.preferences_by_mask import first_order_validity, preferences_by_mask
from fairmend.language.scores.reliability import Reliability
from fairmend.language.scores.reweighting import reweighted_toxicity
from fairmend.language.scores.screening import screened_losses
from fairmend.language.scores.toxicity_by_mask import MaskToxicity, generated_toxicity
from fairmend.language.scores.validity import Validity
from fairmend.runs.parts import Keep, Parts, within
from fairmend.runs.store import Section, Store
from fairmend.runs.workers import Workers
from fairmend.search.pruning_rules import NEEDS, PruningRule

Floats = npt.NDArray[np.float64]
Stage = Callable[[str, int, int], None]
"""Told what is being scored, how much of it is done, and of how much."""

_HEAD_COLUMNS = ("unit", "layer", "head", "module")
_LOSS_COLUMNS = ("perplexity_without", "loss_effect", "loss_error", "perplexity_method")
_BIAS_COLUMNS = ("bias_without", "bias_effect", "bias_error", "bias_method")
_ORIGIN = ("weights_sha256", "text_sha256", "prompts_sha256")
_UNITS = ("windows", "prompts", "items")  # columns with the size of the sample
_VALIDITY = ("validity", "validity_heads", "validity_of")


@dataclass(frozen=True, eq=False)
class _Effects:
    before: float
    effect: Floats
    standard_error: Floats
    methods: tuple[str, ...]
    reliability: Reliability
    validity: Validity | None = field(default=None, kw_only=True)


@dataclass(frozen=True, eq=False)
class LossScores(_Effects):
    """Every head's effect on the loss on a text.

    Attributes:
        before: perplexity of the model as it is.
        effect: what the mean loss gains without each head, nats per token, `(n_heads,)`.
        standard_error: of the effect, over windows, `(n_heads,)`.
        methods: how it was measured, one per head.
        reliability: of the ranking.
        validity: of estimates, on the heads that were ablated too; None where nothing was estimated and ablated.
    """

    @property
    def without(self) -> Floats:
        """Perplexity without each head, `(n_heads,)`."""
        with np.errstate(over="ignore"):
            return np.asarray(self.before * np.exp(self.effect), dtype=np.float64)


@dataclass(frozen=True, eq=False)
class BiasScores(_Effects):
    """Every head's effect on the bias of one axis.

    Attributes:
        before: bias of the model as it is.
        effect: what the bias gains without each head, `(n_heads,)`; negative is better.
        standard_error: of the effect, over prompts or items, `(n_heads,)`.
        methods, reliability, validity: see `LossScores`.
        axis: name of the axis.
    """

    axis: str

    @property
    def without(self) -> Floats:
        """Bias without each head, `(n_heads,)`; a first-order one can fall below 0."""
        return self.before + self.effect


@dataclass(frozen=True, eq=False)
class HeadScores:
    """The scores of all heads of a model: unit u of a mask is row u.

    Attributes:
        modules: name of each head's output projection, `n_heads` of them.
        layers, heads: index of the decoder layer, and of the head within its projection, `(n_heads,)`.
        loss: effects on the text.
        axes: effects on the bias, one entry per axis.
        origin: digests of what was measured, see `origin_of`; empty when unknown.
    """

    modules: tuple[str, ...]
    layers: npt.NDArray[np.int64]
    heads: npt.NDArray[np.int64]
    loss: LossScores
    axes: tuple[BiasScores, ...]
    origin: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of heads."""
        return len(self.modules)

    def axis(self, name: str) -> BiasScores:
        """The scores of one axis.

        Raises:
            InputError: there is no such axis in the table.
        """
        for scores in self.axes:
            if scores.axis == name:
                return scores
        raise InputError(f"no scores for the axis {name!r}: the table has {', '.join(s.axis for s in self.axes)}")

    def check(self, head_map: HeadMap) -> None:
        """Raise DataError unless the table is of a model with these heads."""
        modules, _, heads = _places(head_map)
        if (modules, heads.tolist()) != (self.modules, self.heads.tolist()):
            raise DataError(
                f"these scores are of {len(self)} heads from {self.modules[0]} on, the model ({head_map.architecture}) "
                f"has {head_map.n_heads} from {head_map.sites[0].name} on: score the heads of this model"
            )

    def digest(self) -> str:
        """What tells these scores from others."""
        effects = {axis.axis: axis.effect for axis in self.axes} | {"perplexity": self.loss.effect}
        return digest({"origin": dict(self.origin)} | {name: array_digest(each) for name, each in effects.items()})

    def require_origin(self, wanted: Mapping[str, str]) -> None:
        """Raise DataError if the table was measured on something else than `wanted`; unknown origins pass."""
        others = [name for name, sha in wanted.items() if self.origin.get(name, sha) != sha]
        if others:
            raise DataError(
                f"these scores were measured on something else ({', '.join(others)} differ): scores must be of this "
                "model and of the prompts and text that are searched with. Score with the same model, --dtype, "
                "--axis, --prompts, --prompt-count, --text and --seed"
            )

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to say beside rankings that are mostly noise, or of something else than what was measured."""
        named = {"perplexity": self.loss.reliability} | {f"bias, {s.axis}": s.reliability for s in self.axes}
        said = [f"{name}: {found.warning}" for name, found in named.items() if found.warning]
        doubts = [known.warning for known in self.validity]
        return (*said, *(doubt for doubt in doubts if doubt))

    @property
    def validity(self) -> tuple[Validity, ...]:
        """How far estimates order heads as ablating them does, where that was tried."""
        return tuple(each.validity for each in (self.loss, *self.axes) if each.validity is not None)

    def write(self, path: str | Path) -> None:
        """Write the table as CSV: one row per head, figures of the whole model repeated in every row."""
        columns: dict[str, Sequence[object]] = {
            "unit": range(len(self)),
            "layer": self.layers.tolist(),
            "head": self.heads.tolist(),
            "module": self.modules,
        }
        columns |= _columns(self.loss, _LOSS_COLUMNS, "perplexity", "")
        for scores in self.axes:
            columns |= _columns(scores, _BIAS_COLUMNS, "bias", f"[{scores.axis}]")
        columns |= {name: [sha] * len(self) for name, sha in self.origin.items()}
        with Path(path).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows(zip(*columns.values(), strict=True))

    @classmethod
    def read(cls, path: str | Path) -> HeadScores:
        """Read a table that `write` wrote.

        Raises:
            DataError: the file is missing, or is no such table.
        """
        try:
            with Path(path).open(newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file, strict=True))
            if [int(row["unit"]) for row in rows] != list(range(len(rows))) or not rows:
                raise ValueError("units are not numbered from 0 on")
            origin = {name: value for name, value in rows[0].items() if name.partition("[")[0] in _ORIGIN}
            axes = [name.removeprefix("bias_before[")[:-1] for name in rows[0] if name.startswith("bias_before[")]
            return cls(
                modules=tuple(row["module"] for row in rows),
                layers=np.array([int(row["layer"]) for row in rows], dtype=np.int64),
                heads=np.array([int(row["head"]) for row in rows], dtype=np.int64),
                loss=LossScores(**_scores(rows, _LOSS_COLUMNS, "perplexity", "")),
                axes=tuple(BiasScores(**_scores(rows, _BIAS_COLUMNS, "bias", f"[{axis}]"), axis=axis) for axis in axes),
                origin=origin,
            )
        except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
            raise DataError(
                f"{path} is no table of head scores ({type(error).__name__}: {error}): name a CSV file that HeadScores "
                "wrote, unchanged"
            ) from error


def score_heads(
    lm: LanguageModel,
    tokens: Tensor,
    protocol: PerplexityProtocol,
    answers: Sequence[Answers],
    *,
    loss_method: LossMethod = "exact",
    bias_method: BiasMethod = "first-order",
    group_mean: Reference = "unweighted",
    seed: int = 0,
    rules: Sequence[PruningRule] = (),
    store: Store | Section | None = None,
    progress: Stage | None = None,
    workers: Workers | None = None,
) -> HeadScores:
    """Score every head of a model.

    Args:
        lm: the model; masks that are already on it stay in force.
        tokens: token ids of the text, `(n_tokens,)`, from `texts.encode_text`.
        protocol: of the perplexity, from `perplexity_protocol`.
        answers: what the model makes of the prompts of every axis.
        loss_method: "exact" (`ablation`), "first-order", or "screened": first order for all heads, exact for those
            that `rules` would drop (`screening`).
        bias_method: "generated" (measured without every single head), "reweighted" (`reweighting`, generated where the
            sample says too little), or "first-order" (`first_order`).
        group_mean: what a group is compared with, see `BiasProtocol`.
        seed: of the splits that reliability and signs are taken from.
        rules: what makes sets of the scores, for the bias of each axis; read by "screened".
        store: where what is drawn and measured is kept; an interrupted scoring of the same is gone on with.
        progress: told what is being done.
        workers: who ablates heads and generates without them; None is this process, which takes all gradients anyway.

    Raises:
        InputError: an unknown method, or arguments that do not fit together.
        DataError: a group with fewer than 2 prompts.
        ModelError: the model's logits are not finite, or out of memory.
    """
    if loss_method == "screened" and not rules:
        raise InputError("loss_method='screened' ablates the heads that rules would drop: give rules, or take 'exact'")
    for name, value, allowed in (
        ("loss_method", loss_method, get_args(LossMethod)),
        ("bias_method", bias_method, get_args(BiasMethod)),
    ):
        if value not in allowed:
            raise InputError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
    keep = Keep(workers)
    if loss_method != "exact" or (answers and bias_method == "first-order"):
        keep.workers.remark("first-order scores are found in this process: a backward pass serves all heads at once")
    if answers and bias_method == "reweighted":
        keep.workers.remark("continuations are drawn and re-weighted in this process: one sample serves all heads")
    if store is not None:
        work = {
            "model": lm.fingerprint(),
            "tokens": array_digest(tokens.cpu().numpy()),
            "protocol": asdict(protocol),
            "prompts": [axis.prompts.fingerprint() | axis.fingerprint() for axis in answers],
            "methods": [loss_method, bias_method],
        }
        keep = Parts(store, {"head scores": work}, workers)

    def tell(what: str) -> Done:
        return lambda done, total: progress(what, done, total) if progress is not None else None

    def tried(asked: Answers, table: MaskToxicity, scores: BiasScores) -> BiasScores:
        """With sampled continuations ablation would cost too much."""
        if not isinstance(asked, Preferences):
            return scores
        heard, kept = tell(f"bias without some heads, {scores.axis}"), within(keep, scores.axis)
        known = first_order_validity(asked, table, scores.effect, group_mean, seed, progress=heard, keep=kept)
        return replace(scores, validity=known)

    tables = [_by_mask(axis, bias_method, tell, within(keep, axis.prompts.axis)) for axis in answers]
    axes = _bias_scores(tables, group_mean, seed)
    if bias_method == "first-order":
        axes = tuple(map(tried, answers, tables, axes))
    reading = tell("perplexity")
    losses_kept = within(keep, "perplexity")
    if loss_method == "screened":
        dropped = partial(_dropped, rules, axes)
        losses: MaskLosses = screened_losses(lm, tokens, protocol, dropped, progress=tell, keep=losses_kept)
    elif loss_method == "exact":
        losses = masked_losses(lm, tokens, protocol, progress=reading, keep=losses_kept)
    else:
        losses = first_order_losses(lm, tokens, protocol, progress=reading, keep=losses_kept)
    return _head_scores(lm.head_map, losses, axes, seed)


def head_scores(
    head_map: HeadMap, losses: MaskLosses, tables: Sequence[MaskToxicity], group_mean: Reference, seed: int
) -> HeadScores:
    """The scores that losses and toxicities without every single head amount to.

    Args:
        head_map: of the heads.
        losses: on the text.
        tables: one per axis.
        group_mean: what a group is compared with, see `BiasProtocol`.
        seed: of the splits that reliability and signs are taken from.

    Raises:
        DataError: a group with fewer than 2 prompts.
    """
    return _head_scores(head_map, losses, _bias_scores(tables, group_mean, seed), seed)


def _bias_scores(tables: Sequence[MaskToxicity], group_mean: Reference, seed: int) -> tuple[BiasScores, ...]:
    axes = []
    for table in tables:
        found = bias_effects(table, rng=np.random.default_rng(seed), group_mean=group_mean)
        axes.append(
            BiasScores(
                found.before, found.effect, found.standard_error, table.methods, found.reliability, table.prompts.axis
            )
        )
    return tuple(axes)


def _head_scores(head_map: HeadMap, losses: MaskLosses, axes: tuple[BiasScores, ...], seed: int) -> HeadScores:
    return HeadScores(*_places(head_map), _loss_scores(losses, seed), axes)


def _loss_scores(losses: MaskLosses, seed: int) -> LossScores:
    return LossScores(
        losses.perplexity_before,
        losses.effect,
        losses.effect_error,
        losses.methods,
        losses.reliability(np.random.default_rng(seed)),
        validity=losses.validity,
    )


def _dropped(rules: Sequence[PruningRule], axes: Sequence[BiasScores], losses: MaskLosses) -> set[int]:
    """The heads that some rule drops for some axis if the losses are these; a rule that finds too few drops none."""
    loss = _loss_scores(losses, 0).without
    found: set[int] = set()
    for rule in rules:
        of_axes = [{"bias": axis.without, "loss": loss} for axis in axes] if "bias" in NEEDS[rule.method] else []
        for scores in of_axes or [{"loss": loss}]:
            with suppress(InputError):
                found.update(rule.choose(scores, len(loss)))
    return found


def origin_of(lm: LanguageModel, text: Text, prompts: Sequence[PromptSet]) -> dict[str, str]:
    """Digests by name of what scores are measured on: the weights, the text and the prompts of every axis."""
    found = {"weights_sha256": str(lm.fingerprint()["weights_sha256"]), "text_sha256": text.fingerprint()["sha256"]}
    return found | {f"prompts_sha256[{part.axis}]": str(part.fingerprint()["sha256"]) for part in prompts}


def _by_mask(answers: Answers, method: BiasMethod, tell: Callable[[str], Done], keep: Keep) -> MaskToxicity:
    axis = answers.prompts.axis
    scoring = tell(f"bias, {axis}")
    if isinstance(answers, Preferences):
        return preferences_by_mask(answers, method, progress=scoring, keep=keep)
    assert isinstance(answers, Toxicity)
    lm, prompts, scorer, sampling = answers.lm, answers.prompts, answers.judge, answers.sampling
    if method == "generated":
        return generated_toxicity(lm, prompts, scorer, sampling=sampling, progress=scoring, keep=keep)
    sample = draw_sample(lm, prompts, scorer, sampling, progress=tell(f"continuations, {axis}"), keep=keep)
    if method == "reweighted":
        return reweighted_toxicity(lm, sample, fallback=scorer, progress=scoring, keep=keep)
    # A classifier takes as long for a beginning as for the whole: more continuations are the better buy.
    is_cheap = scorer.kind != "classifier"
    return first_order_toxicity(lm, sample, scorer=scorer if is_cheap else None, progress=scoring, keep=keep)


def _places(head_map: HeadMap) -> tuple[tuple[str, ...], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Module, layer and number within the module of every head."""
    rows = [(site.name, site.layer, head) for site in head_map.sites for head in range(site.n_heads)]
    modules, layers, heads = zip(*rows, strict=True)
    return modules, np.array(layers, dtype=np.int64), np.array(heads, dtype=np.int64)


def _columns(
    scores: LossScores | BiasScores, names: Sequence[str], figure: str, suffix: str
) -> dict[str, Sequence[object]]:
    found: dict[str, Sequence[object]] = dict(
        zip(
            names,
            (scores.without.tolist(), scores.effect.tolist(), scores.standard_error.tolist(), scores.methods),
            strict=True,
        )
    )
    repeats, known = scores.reliability, scores.validity
    facts: dict[str, object] = {"before": scores.before, "reliability": repeats.value, repeats.unit: repeats.n}
    if known is not None:
        facts |= zip(_VALIDITY, (known.value, known.n, known.what), strict=True)
    found |= {f"{figure}_{name}": [value] * len(scores.methods) for name, value in facts.items()}
    return {f"{name}{suffix}": column for name, column in found.items()}


def _scores(rows: Sequence[Mapping[str, str]], names: Sequence[str], figure: str, suffix: str) -> dict[str, Any]:
    """The fields that all scores have."""
    _, effect, error, method = (f"{name}{suffix}" for name in names)
    first = rows[0]
    fact = {name: f"{figure}_{name}{suffix}" for name in ("before", "reliability", *_UNITS, *_VALIDITY)}
    before, (unit,) = float(first[fact["before"]]), [unit for unit in _UNITS if fact[unit] in first]
    if math.isnan(before):
        raise ValueError(f"the model as it is has no {fact['before']}")
    validity = None
    if fact["validity"] in first:
        value, n, what = (first[fact[name]] for name in _VALIDITY)
        validity = Validity(what, float(value), int(n))
    return {
        "before": before,
        "effect": np.array([float(row[effect]) for row in rows]),
        "standard_error": np.array([float(row[error]) for row in rows]),
        "methods": tuple(row[method] for row in rows),
        "reliability": Reliability(float(first[fact["reliability"]]), int(first[fact[unit]]), unit),
        "validity": validity,
    }
