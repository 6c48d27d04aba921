r"""Toxicity under a mask without generating: continuations of the unmasked model, weighted by how likely they become.

Continuations y of a prompt x are drawn once, from q(y | x), the unmasked model's distribution, and scored: t(y). Under
a mask m the same decoding rule draws from p_m(y | x). For the prompts of a group g

    T_g(m) = mean over x of E_{y ~ p_m}[t(y)] = mean over x of E_{y ~ q}[w(x, y) t(y)],
    w(x, y) = p_m(y | x) / q(y | x) = exp(sum over steps of log p_m(y_i | x, y_<i) - log q(y_i | x, y_<i)),

wherever q(y | x) > 0 if p_m(y | x) > 0. The numerators need one forward pass of the masked model over text that is
there already (teacher forcing), no decoding. E_q[w] = 1, and dividing by the mean weight of the group instead of by 1,

    T_g(m) ~ sum w t / sum w = mean t + sum w (t - mean t) / sum w,

makes the estimate one of the change under the mask: common noise of t cancels, and the masked figure is compared with
the unmasked one on the same draws. It is consistent as continuations or prompts become many, with a bias of the order
1 / n (Owen, Monte Carlo theory, methods and examples, section 9.2). Its standard error follows from the linearised
contributions v(x) = T_g + mean over samples of w (t - T_g) / (mean weight of the group), whose mean is T_g; they are
what the table keeps.

How well it works depends on how far the mask moves the model. Kish's effective sample size (sum w)^2 / sum w^2 tells,
per group: where it is a small part of the draws, a few continuations decide, and the mask is better generated with.

Decoding from the top k breaks the condition in one direction: what p_m could draw and q could not is never seen, and
the estimate is of the toxicity of the rest (what q could draw and p_m cannot has weight 0, as it should). The mean
weight before normalising estimates the share of p_m's continuations that is covered; it is kept as `coverage`. Drawing
from the whole distribution (`top_k=None`) avoids it.

Masks of one head, or of heads of late layers, resume from the first layer they change (`layer_resume`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from torch import Tensor

from fairmend.errors import InputError
from fairmend.language.backend.batching import Done
from fairmend.language.generation.decoding import rule_of
from fairmend.language.generation.likelihoods import continuation_log_likelihoods
from fairmend.language.generation.samples import ScoredSample
from fairmend.language.models.models import LanguageModel
from fairmend.language.scores.layer_resume import AllAtOnce
from fairmend.language.scores.mask_runs import MaskRuns, checked_gates
from fairmend.language.scores.toxicity_by_mask import GENERATED, REWEIGHTED, MaskToxicity, generate_masked
from fairmend.language.toxicity.scorer import Scorer
from fairmend.runs.parts import Keep, keep_nothing, within

Floats = npt.NDArray[np.float64]

LEAST_EFFECTIVE = 0.3


@dataclass(frozen=True, eq=False)
class LikelihoodRatios:
    """How much likelier each continuation of a sample becomes under each mask.

    Attributes:
        weights: p_m(y | x) / q(y | x), `(n_masks, n_prompts, n_samples)`; NaN where a mask broke the model.
        method: "layer resume" or "masking".
        note: why not every layer could be saved; empty when there is nothing to say.
    """

    weights: Floats
    method: str
    note: str = ""

    def effective_sizes(self, groups: npt.NDArray[np.int64], n_groups: int) -> Floats:
        """Kish's effective number of continuations for each mask and group, `(n_masks, n_groups)`; 0 where broken."""
        sums, squares = (_group_sums(power.sum(axis=2), groups, n_groups) for power in (self.weights, self.weights**2))
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.nan_to_num(sums**2 / squares, posinf=0.0)

    def coverage(self, groups: npt.NDArray[np.int64], n_groups: int) -> Floats:
        """Mean weight of each mask and group, `(n_masks, n_groups)`: about 1 unless the top k hides something."""
        return _group_sums(self.weights.mean(axis=2), groups, n_groups) / np.bincount(groups, minlength=n_groups)


def reweighted_toxicity(
    lm: LanguageModel,
    sample: ScoredSample,
    gates: npt.ArrayLike | Tensor | None = None,
    *,
    fallback: Scorer | None = None,
    least_effective: float = LEAST_EFFECTIVE,
    progress: Done | None = None,
    keep: Keep = keep_nothing,
) -> MaskToxicity:
    """Estimate the toxicity under each mask from continuations of the unmasked model.

    Args:
        lm: the model the sample was drawn from, with the same masks on it, if any.
        sample: from `samples.draw_sample`.
        gates: `(n_masks, n_heads)`; every head alone when not given.
        fallback: scores what is generated with masks that the sample says too little about; None keeps their estimates.
        least_effective: smallest effective share of a group's continuations, in [0, 1]; below it a mask is generated
            with, if there is a `fallback`.
        progress: told how many continuations times masks are done.
        keep: keeps the likelihoods of every batch, and what is generated.

    Raises:
        InputError: gates of another shape, or a share outside [0, 1].
        ModelError: out of memory.
    """
    if not 0 <= least_effective <= 1:
        raise InputError(f"least_effective must lie in [0, 1], got {least_effective!r}")
    masks = checked_gates(lm, gates)
    ratios = likelihood_ratios(lm, sample, masks, progress=progress, keep=keep)
    groups, n_groups = sample.prompts.groups, len(sample.prompts.group_names)
    without = reweighted_means(ratios.weights, sample.toxicity, groups, n_groups)
    effective = ratios.effective_sizes(groups, n_groups)
    sizes = np.bincount(groups, minlength=n_groups) * sample.toxicity.shape[1]
    methods = np.full(len(masks), REWEIGHTED, dtype=object)
    if fallback is not None:
        thin = np.flatnonzero((effective < least_effective * sizes).any(axis=1))
        if len(thin):
            without[thin] = generate_masked(
                lm, sample.prompts, fallback, masks[thin], sample.sampling, keep=within(keep, "fallback")
            )
            methods[thin], effective[thin] = GENERATED, sizes
    return MaskToxicity(
        before=sample.toxicity.mean(axis=1),
        without=without,
        prompts=sample.prompts,
        methods=tuple(methods),
        effective_sizes=effective,
        n_samples=sample.toxicity.shape[1],
        scorer=sample.scorer,
    )


def reweighted_means(weights: Floats, toxicity: Floats, groups: npt.NDArray[np.int64], n_groups: int) -> Floats:
    """Each prompt's linearised contribution to its group's self-normalised mean; see the module.

    Args:
        weights: `(n_masks, n_prompts, n_samples)`.
        toxicity: `(n_prompts, n_samples)`.
        groups: `(n_prompts,)`.
        n_groups: number of groups.

    Returns:
        `(n_masks, n_prompts)`; the mean over a group's prompts is its weighted mean toxicity. NaN when all weights of
        a group are 0.
    """
    sums = _group_sums(weights.sum(axis=2), groups, n_groups)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = _group_sums((weights * toxicity).sum(axis=2), groups, n_groups) / sums
        sizes = np.bincount(groups, minlength=n_groups)
        residuals = (weights * (toxicity - means[:, groups, None])).sum(axis=2)
        return np.asarray(means[:, groups] + residuals * (sizes / sums)[:, groups], dtype=np.float64)


def likelihood_ratios(
    lm: LanguageModel,
    sample: ScoredSample,
    masks: Tensor,
    *,
    resume: bool = True,
    progress: Done | None = None,
    keep: Keep = keep_nothing,
) -> LikelihoodRatios:
    """Score the continuations of a sample with every mask and divide by their likelihood without one.

    Args and errors: as for `reweighted_toxicity`; `resume=False` runs all layers for every mask.
    """
    runs = MaskRuns(lm, masks, resume)
    prompts, continuations, recorded = sample.prompt_ids, sample.continuations, sample.log_likelihoods
    lengths = np.array([len(prompt) + len(row) for prompt, row in zip(prompts, continuations, strict=True)])
    fit = lm.batches(12 * lm.vocabulary * (sample.sampling.new_tokens + 1), int(lengths.max())).rows
    together = runs.sequences_at_once(fit)
    order = np.argsort(lengths, kind="stable").tolist()
    logs = np.empty((len(masks), len(prompts)))
    done = 0
    for start in range(0, len(order), together):
        chunk = order[start : start + together]

        def log_likelihoods(gates: Tensor | None, times: int, chunk: list[int] = chunk) -> Floats:
            """Log-likelihoods `(n_sequences, times, longest)`; every sequence of the chunk `times` times in a row."""
            found = continuation_log_likelihoods(
                lm,
                [prompts[row] for row in chunk for _ in range(times)],
                [continuations[row] for row in chunk for _ in range(times)],
                gates=gates,
                rule=rule_of(sample.sampling),
                batches=AllAtOnce(),
            )
            values: Floats = found.double().cpu().numpy()
            return values.reshape(len(chunk), times, -1)

        base = runs.unmasked(partial(log_likelihoods, None, 1))
        # Computed like the numerators, so that rounding cancels; as recorded where a token is at the edge of the top k.
        base = np.where(np.isfinite(base), base, recorded[chunk, None, : base.shape[2]])
        of_chunk = within(keep, f"{len(chunk)} continuations from {chunk[0]} on")
        for part, found in runs.masked(log_likelihoods, len(chunk), fit, of_chunk):
            logs[np.ix_(part, chunk)] = (found - base).sum(axis=2).T
            done += len(part) * len(chunk)
            if progress is not None:
                progress(done, logs.size)
    with np.errstate(over="ignore"):
        weights = np.exp(logs).reshape(len(masks), sample.toxicity.shape[1], -1).transpose(0, 2, 1)
    return LikelihoodRatios(weights, runs.method, runs.note)


def _group_sums(values: Floats, groups: npt.NDArray[np.int64], n_groups: int) -> Floats:
    """Sums over the prompts of each group: (n_masks, n_prompts) -> (n_masks, n_groups)."""
    return np.asarray(values @ (groups[:, None] == np.arange(n_groups)), dtype=np.float64)
