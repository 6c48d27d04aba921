"""Losses without each head: first order estimates all, ablation settles those that would be dropped.

First order is cheap and not valid alone. On smollm2 (512 tokens of text) it promises that dropping uncritical heads
lowers the loss, and its sums rank 24 sets of 4 to 27 of 54 such heads the wrong way round: rank correlation -.76 with
their measured loss on another text, -.89 with windows of 512 tokens instead of 128; sums of ablated heads: .93, .88.
(On 1,024 tokens it is 4 to 45 times too small for the most damaging heads.) Ablating every head is exact and slow.

Yet only the heads that a set would drop must be known: a critical one among them breaks the model, one that is never
dropped does no harm. So these are ablated and take their exact loss. Whoever makes the sets is asked again: a head that
turned out to be critical is spared and another takes its place, which is ablated in turn, until no set drops a head
whose loss is an estimate. (That ends: at the latest with all heads ablated.)

Estimates stand beside exact losses then, and must not look better only for being estimates: all of them are shifted by
the median of what ablation found beyond first order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
from torch import Tensor

from fairmend.evaluation import array_digest
from fairmend.language.backend.batching import Done
from fairmend.language.measurement.perplexity import PerplexityProtocol
from fairmend.language.models.models import LanguageModel
from fairmend.language.scores.ablation import MaskLosses, masked_losses
from fairmend.language.scores.first_order import first_order_losses
from fairmend.language.scores.mask_runs import single_heads
from fairmend.language.scores.toxicity_by_mask import FIRST_ORDER
from fairmend.language.scores.validity import Validity, rank_validity
from fairmend.runs.parts import Keep, keep_nothing, within


@dataclass(frozen=True, eq=False)
class ScreenedLosses(MaskLosses):
    """The loss without each head: exact where a head was ablated, to first order and shifted elsewhere.

    Attributes:
        estimate: of every head to first order, not shifted.
        ablated: whether each head was, `(n_heads,)`.
        method: how those were.
    """

    estimate: MaskLosses = field(kw_only=True)
    ablated: npt.NDArray[np.bool_] = field(kw_only=True)

    @property
    def methods(self) -> tuple[str, ...]:
        """How the loss without each head was found."""
        return tuple(self.method if exact else FIRST_ORDER for exact in self.ablated)

    @cached_property
    def validity(self) -> Validity:
        """How far first order orders the ablated heads as ablation does."""
        estimated, exact = (losses.effect[self.ablated] for losses in (self.estimate, self))
        return rank_validity(estimated, exact, "first-order loss against exact ablation")

    def ablating(self, units: npt.NDArray[np.int64], exact: MaskLosses) -> ScreenedLosses:
        """The same with these heads ablated too, and the estimates of the others shifted anew."""
        ablated, without = self.ablated.copy(), self.without.copy()
        ablated[units] = True
        without[units] = self.before + exact.without - exact.before
        known = replace(self, without=without, ablated=ablated, method=exact.method)
        beyond = (known.effect - self.estimate.effect)[ablated]
        shift = float(np.median(beyond[np.isfinite(beyond)])) if np.isfinite(beyond).any() else 0.0
        without[~ablated] = self.estimate.without[~ablated] + shift * self.counts
        return known


def screened_losses(
    lm: LanguageModel,
    tokens: Tensor,
    protocol: PerplexityProtocol,
    dropped: Callable[[MaskLosses], Iterable[int]],
    *,
    progress: Callable[[str], Done] | None = None,
    keep: Keep = keep_nothing,
) -> ScreenedLosses:
    """Measure the loss on a text without the heads that would be dropped, and estimate it without the others.

    Args:
        lm: the model; masks that are already on it stay in force.
        tokens: token ids of the text, `(n_tokens,)`, from `texts.encode_text`.
        protocol: windows and mean, from `perplexity_protocol`.
        dropped: names the heads that would be dropped if the losses were these.
        progress: gives, for the name of a stage, what is told how far it is.
        keep: keeps gradients and losses.

    Raises:
        InputError: a text without two tokens.
        ModelError: out of memory.
    """

    def tell(stage: str) -> Done | None:
        return None if progress is None else progress(stage)

    estimate = first_order_losses(lm, tokens, protocol, progress=tell("perplexity"), keep=keep)
    losses = ScreenedLosses(
        *(estimate.before, estimate.without, estimate.counts, protocol, FIRST_ORDER),
        estimate=estimate,
        ablated=np.zeros(len(estimate.without), dtype=np.bool_),
    )
    while len(units := np.setdiff1d(sorted(dropped(losses)), np.flatnonzero(losses.ablated)).astype(np.int64)):
        exact = masked_losses(
            lm,
            tokens,
            protocol,
            single_heads(len(losses.ablated))[units],
            progress=tell(f"perplexity without {len(units)} heads after {losses.ablated.sum()} others"),
            keep=within(keep, f"heads {array_digest(units)}"),
        )
        losses = losses.ablating(units, exact)
    return losses
