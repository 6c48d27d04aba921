"""Switch attention heads off or turn them, no weight touched: one gate per head, in front of the output projection."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from fairmend.errors import InputError
from fairmend.language.backend.forward import plain
from fairmend.language.heads.heads import HeadMap, find_heads
from fairmend.masks import Mask


class _Gate:
    """The gate of one output projection: multiplies its input, head by head."""

    def __init__(self, n_heads: int, head_dim: int, device: torch.device, dtype: torch.dtype) -> None:
        self.head_dim = head_dim
        self.values = torch.ones(n_heads * head_dim, device=device, dtype=dtype)  # (width,) or (rows, 1, width)
        self.is_open = True

    def set(self, heads: Tensor, expand: int) -> None:
        """Take values of shape (n_heads,) or (rows, n_heads); the buffer is overwritten in place if its shape fits."""
        wide = heads.to(self.values.device, self.values.dtype).repeat_interleave(self.head_dim, dim=-1)
        if wide.dim() == 2:
            wide = wide.repeat_interleave(expand, dim=0)[:, None]
        self.is_open = not wide.requires_grad and bool((wide == 1).all())
        frozen = self.values.is_inference() and not torch.is_inference_mode_enabled()  # cannot be overwritten
        if wide.requires_grad or self.values.requires_grad or frozen or wide.shape != self.values.shape:
            self.values = wide
        else:
            self.values.copy_(wide)

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        # A compiled graph must not depend on which gates are open now: it multiplies always.
        if not torch.compiler.is_compiling() and self.is_open:
            return None
        features = args[0]
        values = self.values.to(features.device, features.dtype)
        if values.dim() == 1:
            return (features * values, *args[1:])
        rows = values.shape[0]
        if features.shape[0] % rows or (features.dim() > 2 and features.shape[0] != rows):
            raise InputError(
                f"the gates are for {rows} rows, the batch has {features.shape[0]}: give one row of gates per "
                "sequence, and expand=k when generate() repeats every prompt k times"
            )
        gated = features.reshape(rows, -1, features.shape[-1]) * values
        return (gated.reshape(features.shape), *args[1:])


class HeadGates:
    """One gate per attention head of a model, all open at first; close them with `set`, remove them with `remove`.

    A gate multiplies the head's slice of the input of the output projection; the projection's bias stays. 0 switches
    the head off. Gates are buffers that `set` overwrites in place, so they work in a model compiled by torch.compile
    after the gates were made. A layer whose gates are all one is passed by (when not compiled). Weights are never
    touched. A second set of gates on the same model multiplies with the first.

    Args:
        model: a causal language model.
        head_map: its heads; found when not given.

    Raises:
        ModelError: the heads cannot be found, or `head_map` belongs to another model.
    """

    def __init__(self, model: nn.Module, head_map: HeadMap | None = None) -> None:
        self.head_map = find_heads(model) if head_map is None else head_map
        self._gates: list[_Gate] = []
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []
        modules = self.head_map.modules(model)
        dtype = next((p.dtype for p in plain(model).parameters() if p.is_floating_point()), torch.float32)
        for site, module in zip(self.head_map.sites, modules, strict=True):
            device = next((p.device for p in module.parameters() if not p.is_meta), torch.device("cpu"))
            gate = _Gate(site.n_heads, site.head_dim, device, dtype)
            self._gates.append(gate)
            self._hooks.append(module.register_forward_pre_hook(gate))

    def set(self, gates: Tensor, expand: int = 1) -> None:
        """Set all gates.

        Args:
            gates: shape (n_heads,) for the whole model, or (rows, n_heads) for one setting per sequence of the batch.
                Gates that require a gradient stay in the autograd graph, so that the gradient of a loss with respect
                to them is each head's first-order effect.
            expand: how often generate() repeats every sequence in a row (beams, returned sequences).

        Raises:
            InputError: another number of heads, or gates of three and more dimensions.
        """
        if gates.dim() not in (1, 2) or gates.shape[-1] != self.head_map.n_heads or expand < 1:
            raise InputError(
                f"gates of shape {tuple(gates.shape)} with expand={expand}: need ({self.head_map.n_heads},) or "
                f"(rows, {self.head_map.n_heads}) and expand >= 1"
            )
        for gate, heads in zip(self._gates, self.head_map.split(gates), strict=True):
            gate.set(heads, expand)

    def drop(self, *masks: Mask, expand: int = 1) -> None:
        """Switch heads off, and turn them, as one mask says for the whole model, or one per sequence of the batch."""
        if not masks:
            raise InputError("no mask given: pass one mask, or one per sequence of the batch")
        gates = torch.stack([self.head_map.gates(mask) for mask in masks])
        self.set(gates[0] if len(masks) == 1 else gates, expand)

    def reset(self) -> None:
        """Open all gates."""
        self.set(torch.ones(self.head_map.n_heads))

    def remove(self) -> None:
        """Take the gates off the model; doing so twice is harmless."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def __enter__(self) -> HeadGates:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()


@contextmanager
def masked(model: nn.Module, mask: Mask, head_map: HeadMap | None = None) -> Iterator[HeadGates]:
    """Put a mask on `model` inside a with-block, and undo it at its end, also after an exception.

    Weights are never touched. Blocks may be nested: the heads of all of them are off, their gains
    multiply. The gates are yielded, to change the mask within the block.

    Args:
        model: a causal language model; compile it inside the block, or use `HeadGates`, if it is to be compiled.
        mask: the heads to switch off, and the gains of the others.
        head_map: the model's heads; found when not given.

    Raises:
        ModelError: the mask or the head map belongs to another model.
    """
    gates = HeadGates(model, head_map)
    try:
        gates.drop(mask)
        yield gates
    finally:
        gates.remove()
