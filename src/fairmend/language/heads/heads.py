"""Find every attention head of a causal language model, whatever its architecture."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import logging

from fairmend.errors import InputError, ModelError
from fairmend.language.backend.forward import (
    embedding,
    plain,
    require_decoder,
    run,
    use_cache,
    vocabulary_of,
    why_not_finite,
)
from fairmend.language.backend.versions import required
from fairmend.language.heads.attention_probe import AttentionCall, input_width, is_linear, watch_attention
from fairmend.masks import Dial, Mask, Site, Space

_ERROR = 40  # the level of that name in the standard logging module
LARGEST_GAIN = 1.5
_GAIN_STEP = 0.15  # of a searcher that turns dials
N_POSITIONS = 5  # length of the probing prompt: short, odd, and unlikely to equal a number of experts


@dataclass(frozen=True, slots=True)
class HeadSite:
    """The heads that one attention output projection reads.

    Attributes:
        name: dotted name of the output projection within the model, such as `model.layers.0.self_attn.o_proj`.
        layer: index of the decoder layer.
        n_heads: number of heads; head h is the h-th slice of `head_dim` input features.
        head_dim: features per head.
        n_kv_groups: number of key-value heads; each serves `n_heads / n_kv_groups` neighbouring heads.
        kind: class of the projection: `Linear`, `Conv1D` or a stand-in.
        is_coupled: whether a norm over all heads sits before the projection, so that a head's contribution can be
            removed, but the others' scale still depends on it (BitNet).
    """

    name: str
    layer: int
    n_heads: int
    head_dim: int
    n_kv_groups: int
    kind: str
    is_coupled: bool = False

    @property
    def width(self) -> int:
        """Number of input features of the projection."""
        return self.n_heads * self.head_dim


@dataclass(frozen=True, slots=True)
class HeadMap:
    """All attention heads of a model, layer by layer: unit u of a mask is head `u` in this order.

    The map holds names, not modules: it also fits a copy of the model, or the same model loaded again.
    """

    architecture: str
    sites: tuple[HeadSite, ...]

    @property
    def n_heads(self) -> int:
        """Number of heads over all layers, and of hidden neurons if the map has them, see `with_neurons`."""
        return sum(site.n_heads for site in self.sites)

    def space(
        self,
        min_drop: int = 0,
        max_drop: int | None = None,
        frozen: frozenset[int] | set[int] = frozenset(),
        gains: bool = False,
    ) -> Space:
        """The search space with one site per attention layer.

        Args:
            min_drop, max_drop, frozen: see `Space`.
            gains: whether heads may also be turned down and up: one dial per head, its gain minus 1.

        Raises:
            InputError: limits or frozen heads that leave no mask.
        """
        sites = tuple(Site(site.name, site.n_heads) for site in self.sites)
        dials = tuple(
            Dial(f"gain of {site.layer}.{head}", -1.0, LARGEST_GAIN - 1.0, _GAIN_STEP)
            for site in self.sites
            for head in range(site.n_heads)
        )
        return Space(sites, min_drop, max_drop, frozenset(frozen), dials if gains else ())

    def mask(self, gains: npt.ArrayLike) -> Mask:
        """The mask that multiplies every head by its gain; a head of gain 0 is dropped.

        Args:
            gains: of every head, within 0 and `LARGEST_GAIN`, (n_heads,).

        Raises:
            InputError: another number of gains, or one outside of these limits.
        """
        values = np.asarray(gains, dtype=np.float64)
        if values.shape != (self.n_heads,):
            raise InputError(
                f"gains of shape {values.shape}: {self.architecture} has {self.n_heads} heads, one gain each"
            )
        dials = values - 1
        return self.space(gains=True).mask(np.flatnonzero(dials == -1).tolist(), dials.tolist())

    def gates(self, mask: Mask) -> Tensor:
        """What every head is multiplied by under a mask, float32 of shape (n_heads,), see `gains_of`.

        Raises:
            ModelError: a mask of another model.
        """
        self.check(mask)
        return torch.from_numpy(gains_of(mask)).float()

    def modules(self, model: nn.Module) -> list[nn.Module]:
        """The output projections within `model`, one per site.

        Raises:
            ModelError: the model has no such module, or one of another width.
        """
        inside = plain(model)
        found = []
        for site in self.sites:
            try:
                module = inside.get_submodule(site.name)
            except AttributeError:
                raise ModelError(
                    f"{type(inside).__name__} has no module {site.name!r}: this head map was made for another model "
                    f"({self.architecture}); call find_heads on the model itself"
                ) from None
            if not is_linear(module) or input_width(module) != site.width:
                width = input_width(module) if is_linear(module) else "no"
                raise ModelError(
                    f"{site.name} has {width} input features, the head map says {site.n_heads} heads x "
                    f"{site.head_dim}: call find_heads on the model itself"
                )
            found.append(module)
        return found

    def check(self, mask: Mask) -> None:
        """Raise ModelError unless `mask` is one of this model's."""
        if mask.n_units != self.n_heads or len(mask.dials) not in (0, self.n_heads):
            raise ModelError(
                f"the mask has {mask.n_units} units and {len(mask.dials)} dials, {self.architecture} has "
                f"{self.n_heads} heads, and no dials or one each: use a mask that was made for this model"
            )

    def split(self, gates: Tensor) -> tuple[Tensor, ...]:
        """One view per site of values for all heads, shape (..., n_heads)."""
        bounds = list(accumulate((site.n_heads for site in self.sites), initial=0))
        return tuple(gates[..., low:high] for low, high in pairwise(bounds))


def gains_of(mask: Mask) -> npt.NDArray[np.float64]:
    """What a mask multiplies every head by, (n_heads,): 0 if dropped, else 1 plus its dial, if there are dials."""
    turned = 1.0 + np.array(mask.dials) if mask.dials else np.ones(mask.n_units)
    return np.where(mask.dropped(), 0.0, turned)


def n_changed(mask: Mask) -> int:
    """How many heads a mask drops or turns."""
    return int(np.count_nonzero(gains_of(mask) != 1))


def find_heads(model: nn.Module) -> HeadMap:
    """Find every attention head of a causal language model of transformers.

    Two forward passes of five tokens, the second with one row per head in which that head is switched off inside the
    attention kernel; see `attention_probe`. Weights, modes, hooks and torch's random generators are as before.
    Recurrent and linear-attention layers of hybrid models have no heads in this sense.

    Raises:
        ModelError: not a causal language model of transformers, no attention heads, or heads that are not slices of
            the input of one output projection.
    """
    inside = plain(model)
    _check_kind(inside)
    with probing(inside):
        _check_causal(inside)
        calls = watch_attention(inside, lambda rows: run_probe(inside, probe_ids(inside, rows)).logits, N_POSITIONS)
    if not calls:
        raise ModelError(
            f"{type(inside).__name__} has no attention heads: no softmax attention ran on {N_POSITIONS} tokens. "
            "State-space, recurrent and linear-attention models (Mamba, RWKV, xLSTM) have none"
        )
    return HeadMap(type(inside).__name__, _sites(inside, calls))


def _check_kind(model: nn.Module) -> None:
    kind = type(model).__name__
    if not isinstance(model, PreTrainedModel):
        raise ModelError(f"{kind} is not a model of transformers: load it with AutoModelForCausalLM, adapters merged")
    require_decoder(model, kind)
    accessor: Any = required(model, "get_output_embeddings")
    try:
        has_head = accessor() is not None
    except (NotImplementedError, AttributeError):  # left open by some architectures; their logits are judged below
        has_head = True
    if not has_head:
        raise ModelError(
            f"{kind} has no language-model head (a base model or a classifier): load it with AutoModelForCausalLM"
        )


def _check_causal(model: nn.Module) -> None:
    """Raise unless the model reads plain token ids and no logits depend on a later token."""
    ids = probe_ids(model, 2)
    ids[1, -1] = (ids[1, -1] + 1) % ids.max()
    logits = run_probe(model, ids).logits
    if logits.dim() != 3 or logits.shape[:2] != ids.shape:
        raise ModelError(
            f"{type(model).__name__} returns logits of shape {tuple(logits.shape)} for {tuple(ids.shape)} token ids: "
            "it is not a causal language model"
        )
    if not bool(torch.isfinite(logits).all()):
        raise ModelError(f"{type(model).__name__} gives logits that are not finite: {why_not_finite(model)}")
    earlier = logits[:, :-1]
    change = float((earlier[0] - earlier[1]).abs().max()) / max(float(logits.abs().max()), 1e-30)
    if change > (1e-3 if logits.dtype in (torch.float32, torch.float64) else 0.1):
        raise ModelError(
            f"{type(model).__name__} looks at later tokens (a masked language model?): only causal language models are "
            "supported; BERT-like checkpoints need config.is_decoder=True"
        )


def probe_ids(model: nn.Module, n_rows: int) -> Tensor:
    """Token ids of shape (n_rows, N_POSITIONS): one fixed prompt of distinct tokens, repeated."""
    vocabulary = vocabulary_of(model)
    if vocabulary <= N_POSITIONS:
        raise ModelError(f"{type(model).__name__} has no text vocabulary (vocab_size={vocabulary})")
    stride = max(1, vocabulary // (N_POSITIONS + 1))
    ids = torch.arange(1, N_POSITIONS + 1) * stride
    device = embedding(model).device
    return ids.repeat(n_rows, 1).to("cpu" if device.type == "meta" else device)


def run_probe(model: nn.Module, ids: Tensor, **options: Any) -> Any:
    """The model's outputs for token ids of shape (n_rows, n_positions), without a cache.

    Raises:
        ModelError: the model does not run on token ids alone, or returns no logits.
    """
    return run(model, {"input_ids": ids, **use_cache(model, False), **options})


@contextmanager
def probing(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, no gradients, a readable attention kernel, forked random generators; all undone at the end."""
    training = {module: module.training for module in model.modules()}
    device = next(model.parameters()).device
    config: Any = model.config
    kernels = required(config, "_attn_implementation")
    verbosity = logging.get_verbosity()
    logging.set_verbosity(_ERROR)  # remarks on the probing prompt or kernel do not concern the user
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.no_grad():
            if kernels not in ("eager", "sdpa", None):  # flash and flex kernels do not pass through torch functions
                required(model, "set_attn_implementation")("eager")
            model.eval()
            yield
    finally:
        if config._attn_implementation != kernels:
            required(model, "set_attn_implementation")(kernels)
        logging.set_verbosity(verbosity)
        for module, mode in training.items():
            module.training = mode


def _sites(model: nn.Module, calls: list[AttentionCall]) -> tuple[HeadSite, ...]:
    sites: dict[str, HeadSite] = {}
    for order, call in enumerate(calls):
        layer = enclosing_layer(model, call.projection)
        site = HeadSite(
            name=call.projection,
            layer=order if layer is None else layer[1],
            n_heads=call.n_heads,
            head_dim=call.width // call.n_heads,
            n_kv_groups=call.n_kv_groups,
            kind=type(model.get_submodule(call.projection)).__name__,
            is_coupled=call.is_coupled,
        )
        # A block shared between layers runs several times, and its heads are the same units each time.
        known = sites.setdefault(site.name, site)
        if (known.n_heads, known.head_dim) != (site.n_heads, site.head_dim):
            raise ModelError(f"{site.name} serves {known.n_heads} heads in one layer and {site.n_heads} in another")
    return tuple(sites.values())


def enclosing_layer(model: nn.Module, name: str) -> tuple[str, int] | None:
    """Name of the outermost list of layers that holds the module `name`, and the index within it."""
    parts = name.split(".")
    for depth, part in enumerate(parts):
        parent = ".".join(parts[:depth])
        if part.isdigit() and isinstance(model.get_submodule(parent), nn.ModuleList):
            return parent, int(part)
    return None
