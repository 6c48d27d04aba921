"""An independent account of what switching off a head means: its attention output is zero, in the kernel itself."""

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, eager_mask

_order: list[torch.nn.Module] = []
_silent: tuple[int, int] | None = None


def _kernel(module: torch.nn.Module, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:
    """The architecture's own eager attention, with one head of one attention layer silent."""
    own = vars(sys.modules[type(module).__module__]).get("eager_attention_forward", sdpa_attention_forward)
    output = own(module, *args, **kwargs)[0]  # (batch, positions, heads, head_dim)
    if module not in _order:
        _order.append(module)
    if _silent is not None and _order.index(module) == _silent[0]:
        output = output.clone()
        output[:, :, _silent[1]] = 0
    return output, None


AttentionInterface.register("one_head_silent", _kernel)
AttentionMaskInterface.register("one_head_silent", eager_mask)


def with_silent_head(
    model: PreTrainedModel, forward: Callable[[], Tensor], silent: tuple[int, int] | None
) -> tuple[Tensor, int]:
    """The result of `forward` with (layer, head) silent, and the number of attention layers that ran.

    Layers are counted from 0 in the order in which they first attend; no layer runs through this kernel in models that
    do not use the attention interface of transformers.
    """
    global _silent  # noqa: PLW0603 # the interface hands no state to a registered kernel
    kernels = model.config._attn_implementation
    _order.clear()
    _silent = silent
    model.set_attn_implementation("one_head_silent")
    try:
        return forward(), len(_order)
    finally:
        model.set_attn_implementation(kernels)
