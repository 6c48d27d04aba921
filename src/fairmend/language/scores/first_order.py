r"""Every head's effect on loss and bias to first order: one pass forward and back over the sample.

Gates. Head h of the model is multiplied by a gate a_h: 1 as it is, 0 switched off. Every sequence of a batch has gates
of its own, so that going backward once from the sum over the batch gives every sequence's own gradient with respect to
all gates. A quantity F(a) changes by about -dF/da_h when head h is switched off.

Loss. d(loss of window w)/da_h is the gradient for a window's gates.

Toxicity (the score function, or REINFORCE; Williams, Machine Learning 1992). For a prompt x, with continuations y from
the model's own decoding distribution p_a(y | x) and scored t(y),

    d/da_h E_{y ~ p_a}[t(y)] = sum over y of t(y) dp_a(y | x)/da_h = E_{y ~ p_a}[(t(y) - b(x)) s_h(x, y)],
    s_h(x, y) = d log p_a(y | x) / da_h,

for any b(x) that does not depend on y, because E[s_h] = d(sum over y of p_a(y | x))/da_h = 0. The scores t are not
differentiated: any scorer will do. The mean over a group's prompts estimates dT_g/da_h, and `bias_effects` makes the
effect on the bias of them by the chain rule, with care for signs and the kink.

Baseline. b should be near E[t | x] and must not see y. Two candidates: the mean of the other prompts of the group, and
of the other samples of the prompt. The former misses what is special about the prompt (variance v_b between prompts),
the latter is a mean of few (v_w / (n_samples - 1) within prompts). The mixture with weight v_b / (v_b + v_w /
(n_samples - 1)) on the latter is best of all mixtures; the two variances are estimated in each group by analysis of
variance. (They see y too, but as two numbers over a whole group: an error of the order 1 / n.)

Beginnings. log p_a(y | x) is a sum over tokens, and the baseline of token i may depend on the tokens before it, because
given those the expectation of its own score is 0 as well (Greensmith, Bartlett and Baxter, JMLR 2004, section 4). What
is toxic in y is often said in its first words; the tokens after them then only add noise. So the scorer is shown the
beginning of y before each token, u_i = t(y_1 ... y_{i-1}), and the estimate becomes

    E[sum over i of (t(y) - c_i u_i - b_i(x)) d log p_a(y_i | x, y_<i) / da_h],

with c_i in [0, 1] the slope of t on u_i within groups and b_i(x) as above, of t - c_i u_i. On planted-smollm2 (see
`planted`), 280 prompts with 3 continuations of 12 tokens ranked the heads with a reliability of .58 instead of .17. A
beginning costs the scorer as much as a whole text, so that this suits cheap ones.

Top k. Under top-k decoding p_a jumps where a token enters or leaves the top k; the gradient is that of the smooth part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fairmend.language.backend.batching import Done
from fairmend.language.generation.decoding import DecodingRule, rule_of
from fairmend.language.generation.likelihoods import (
    WHOLE,
    batched_log_likelihoods,
    bytes_backward,
)
from fairmend.language.generation.samples import ScoredSample, beginnings
from fairmend.language.measurement.perplexity import PerplexityProtocol
from fairmend.language.models.models import LanguageModel
from fairmend.language.scores.ablation import MaskLosses
from fairmend.language.scores.toxicity_by_mask import FIRST_ORDER, MaskToxicity
from fairmend.language.toxicity.scorer import Scorer
from fairmend.runs.parts import Arrays, Keep, keep_nothing

Floats = npt.NDArray[np.float64]

# Few enough to be done soon (256 took about a minute with smollm2 on one busy core), enough for full batches.
_SEQUENCES_PER_PART_ON_CPU = 256
_SEQUENCES_PER_PART_ON_GPU = 4096


def first_order_losses(
    lm: LanguageModel,
    tokens: Tensor,
    protocol: PerplexityProtocol,
    *,
    progress: Done | None = None,
    keep: Keep = keep_nothing,
) -> MaskLosses:
    """Estimate the loss on a text without each head from the gradient of the loss with respect to its gate.

    A screen, not a measurement: heads whose removal does great damage are underestimated.

    Args:
        lm: the model; masks that are already on it stay in force.
        tokens: token ids of the text, `(n_tokens,)`, from `texts.encode_text`.
        protocol: windows and mean, from `perplexity_protocol`.
        progress: told how many windows are read.
        keep: keeps the gradients.

    Raises:
        InputError: a text without two tokens.
        ModelError: out of memory.
    """
    ids, windows = tokens.tolist(), protocol.windows(len(tokens))
    likelihoods, gradients = gate_gradients(
        lm,
        [ids[window.start : window.first] for window in windows],
        [ids[window.first : window.stop] for window in windows],
        WHOLE,
        progress=progress,
        keep=keep,
    )
    counts = np.array([window.shape[1] for window in windows], dtype=np.float64)
    # Loss is minus log-likelihood, and switching off is a step of -1: the signs cancel.
    return MaskLosses(-likelihoods, -likelihoods + gradients.T, counts, protocol, FIRST_ORDER, "an estimate: a screen")


def first_order_toxicity(
    lm: LanguageModel,
    sample: ScoredSample,
    *,
    scorer: Scorer | None = None,
    progress: Done | None = None,
    keep: Keep = keep_nothing,
) -> MaskToxicity:
    """Estimate the toxicity without each head from continuations of the unmasked model.

    Args:
        lm: the model the sample was drawn from, with the same masks on it, if any.
        sample: from `samples.draw_sample`; several samples per prompt are worth more than as many prompts of one
            group where prompts differ in toxicity.
        scorer: the one the sample was scored with, to score the beginnings of the continuations too; None does
            without: much noisier where a few words decide.
        progress: told how many continuations are gone through.
        keep: keeps the gradients.

    Raises:
        ModelError: out of memory.
    """
    groups, (n_prompts, n_samples) = sample.prompts.groups, sample.toxicity.shape
    begun = None if scorer is None else beginnings(lm, sample, scorer)
    weights = advantages(sample.toxicity, groups, begun).transpose(1, 0, 2).reshape(n_samples * n_prompts, -1)
    _, gradients = gate_gradients(
        lm, sample.prompt_ids, sample.continuations, rule_of(sample.sampling), weights, progress, keep
    )
    slopes = gradients.reshape(n_samples, n_prompts, -1).mean(axis=0).T
    before = sample.toxicity.mean(axis=1)
    n_heads, n_groups = len(slopes), len(sample.prompts.group_names)
    sizes = np.bincount(groups, minlength=n_groups) * float(n_samples)
    return MaskToxicity(
        before=before,
        without=before - slopes,
        prompts=sample.prompts,
        methods=(FIRST_ORDER,) * n_heads,
        effective_sizes=np.tile(sizes, (n_heads, 1)),
        n_samples=n_samples,
        scorer=sample.scorer,
    )


def gate_gradients(
    lm: LanguageModel,
    prompt_ids: Sequence[Sequence[int]],
    continuations: Sequence[Sequence[int]],
    rule: DecodingRule,
    weights: Floats | None = None,
    progress: Done | None = None,
    keep: Keep = keep_nothing,
) -> tuple[Floats, Floats]:
    """Log-likelihood of every continuation, and its gradient with respect to all gates.

    Args:
        lm, prompt_ids, continuations, rule: see `batched_log_likelihoods`.
        weights: of each token's log-likelihood in the gradient, `(n_sequences, longest continuation)` or, of all tokens
            alike, `(n_sequences, 1)`; 1 when not given.
        progress: told how many sequences are gone through.
        keep: keeps both, some hundred sequences at a time.

    Returns:
        `(n_sequences,)` and `(n_sequences, n_heads)`.

    Raises:
        ModelError: out of memory.
    """
    n = len(prompt_ids)
    sizes = [len(prompt) + len(row) for prompt, row in zip(prompt_ids, continuations, strict=True)]
    order = sorted(range(n), key=sizes.__getitem__)
    together = _SEQUENCES_PER_PART_ON_GPU if lm.device.type == "cuda" else _SEQUENCES_PER_PART_ON_CPU
    likelihoods, gradients = np.empty(n), np.empty((n, lm.head_map.n_heads))
    for start in range(0, n, together):
        part = order[start : start + together]

        def of_part(part: list[int] = part, start: int = start) -> Arrays:
            found, slopes = _gate_gradients(
                lm,
                [prompt_ids[row] for row in part],
                [continuations[row] for row in part],
                rule,
                None if weights is None else weights[part],
                None if progress is None else lambda done: progress(start + done, n),
            )
            return {"log_likelihoods": found, "gradients": slopes}

        made = keep(f"gradients of {len(part)} sequences from {part[0]} on", of_part)
        likelihoods[part], gradients[part] = made["log_likelihoods"], made["gradients"]
    return likelihoods, gradients


def _gate_gradients(
    lm: LanguageModel,
    prompt_ids: Sequence[Sequence[int]],
    continuations: Sequence[Sequence[int]],
    rule: DecodingRule,
    weights: Floats | None,
    progress: Callable[[int], None] | None,
) -> tuple[Floats, Floats]:
    gates = torch.ones(len(prompt_ids), lm.head_map.n_heads, requires_grad=True)
    longest = max(len(prompt) + len(row) for prompt, row in zip(prompt_ids, continuations, strict=True))
    batches = lm.batches(bytes_backward(lm, longest, max(map(len, continuations))), longest)
    found, done = np.zeros(len(prompt_ids)), 0
    with torch.enable_grad():
        for rows, values in batched_log_likelihoods(
            lm, prompt_ids, continuations, gates=gates, rule=rule, batches=batches
        ):
            # A token that rounding puts outside of the top k now has no gradient.
            finite = torch.where(values.isfinite(), values, torch.zeros_like(values))
            weighted = finite
            if weights is not None:  # as long as the longest continuation of all parts
                weighted = finite * torch.tensor(weights[list(rows), : finite.shape[1]]).to(finite)
            weighted.sum().backward()  # type: ignore[no-untyped-call]
            found[list(rows)] = finite.detach().sum(dim=1).double().cpu().numpy()
            done += len(rows)
            if progress is not None:
                progress(done)
    gradient = gates.grad
    assert gradient is not None
    return found, gradient.double().cpu().numpy()


def baselines(toxicity: Floats, groups: npt.NDArray[np.int64]) -> Floats:
    """What to expect of each continuation without looking at it, `(n_prompts, n_samples)`; see the module.

    Args:
        toxicity: `(n_prompts, n_samples)`.
        groups: `(n_prompts,)`.
    """
    n_samples = toxicity.shape[1]
    found = np.empty_like(toxicity)
    for group in np.unique(groups):
        own = toxicity[groups == group]
        n = len(own)
        means = own.mean(axis=1, keepdims=True)
        of_others = (means.sum() - means) / (n - 1) if n > 1 else np.full_like(means, toxicity.mean())
        if n_samples == 1:
            found[groups == group] = of_others
            continue
        of_samples = (own.sum(axis=1, keepdims=True) - own) / (n_samples - 1)
        within = float(own.var(axis=1, ddof=1).mean())
        between = max(0.0, float(means.var(ddof=1)) - within / n_samples) if n > 1 else 0.0
        noise = within / (n_samples - 1)
        weight = between / (between + noise) if between + noise > 0 else 0.0
        found[groups == group] = weight * of_samples + (1 - weight) * of_others
    return found


def advantages(toxicity: Floats, groups: npt.NDArray[np.int64], begun: Floats | None = None) -> Floats:
    """What each token of a continuation is weighted with: how much more toxic the whole is than was to be expected.

    Args:
        toxicity: `(n_prompts, n_samples)`.
        groups: `(n_prompts,)`.
        begun: toxicity of what stood before each token, `(n_prompts, n_samples, n_tokens)`.

    Returns:
        `(n_prompts, n_samples, n_tokens)`, or one weight for all tokens when `begun` is not given.
    """
    if begun is None:
        return (toxicity - baselines(toxicity, groups))[..., None]
    members = groups[:, None] == np.arange(groups.max() + 1)
    within = members / np.maximum(members.sum(axis=0), 1)
    found = np.empty_like(begun)
    for step in range(begun.shape[2]):
        so_far = begun[..., step]
        deviations = [values - (members @ (within.T @ values.mean(axis=1)))[:, None] for values in (so_far, toxicity)]
        spread = float((deviations[0] ** 2).sum())
        slope = float((deviations[0] * deviations[1]).sum()) / spread if spread > 0 else 0.0
        rest = toxicity - min(max(slope, 0.0), 1.0) * so_far
        found[..., step] = rest - baselines(rest, groups)
    return found
