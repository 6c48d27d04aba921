"""Watch a model attend: which attention calls run, how many heads each has, and which linear layer reads them.

The probe needs no name and no configuration of an architecture. Whatever a model looks like, softmax attention ends in
one of two torch functions: `scaled_dot_product_attention`, or a softmax over key positions. A torch function mode sees
both. Nothing else looks like them: a softmax over experts is not triangular, and recurrent or linear-attention layers
call neither, which tells the layers of hybrid models apart.

Each head is then switched off in a batch row of its own: row 0 is untouched, in row h + 1 head h attends to nothing.
The first linear layer whose input differs between the rows is the attention's output projection, and the slice of that
input which turned to zero in row h + 1 is the slice of head h. The rows are made equal again on the way into the
projection, so one forward pass proves every layer, and rows that still differ at the end reveal a head whose output
also flows around the projection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers.pytorch_utils import Conv1D

from fairmend.errors import ModelError
from fairmend.language.backend.forward import is_exact

_SDPA = F.scaled_dot_product_attention
_SOFTMAX = {torch.softmax, F.softmax, Tensor.softmax, torch.special.softmax}
_MATMUL = {torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm}


@dataclass
class AttentionCall:
    """One call of an attention kernel.

    Attributes:
        n_heads: number of heads of the call.
        n_kv_groups: number of distinct value heads; equals `n_heads` when the values could not be observed.
        projection: the linear layer that reads the heads, "" until it is known.
        width: number of features of the projection's input.
        is_coupled: whether switching off one head rescales the other heads' slices (a norm over all heads).
    """

    n_heads: int
    n_kv_groups: int
    projection: str = ""
    width: int = 0
    is_coupled: bool = False


def is_linear(module: nn.Module) -> bool:
    """Whether a module maps features linearly: `nn.Linear`, GPT-2's `Conv1D`, or a quantised stand-in for them."""
    # Quantised stand-ins share no class, only two attributes. One without them is not watched, and then its attention
    # is "not read by a linear layer of its own": an error, not a silence.
    widths = [getattr(module, name, None) for name in ("in_features", "out_features")]
    return isinstance(module, (nn.Linear, Conv1D)) or all(isinstance(width, int) for width in widths)


def input_width(module: nn.Module) -> int:
    """Number of input features of a linear module."""
    return int(module.nx) if isinstance(module, Conv1D) else int(getattr(module, "in_features"))  # noqa: B009


def output_width(module: nn.Module) -> int:
    """Number of output features of a linear module."""
    return int(module.nf) if isinstance(module, Conv1D) else int(getattr(module, "out_features"))  # noqa: B009


class KernelWatch(TorchFunctionMode):
    """Hand the output of every attention kernel to `on_kernel(output, values)`, which may return a replacement.

    Args:
        n_positions: sequence length of the watched forward pass: tells attention from other uses of softmax.
        on_kernel: called with the kernel's output, shape (..., n_positions, n_keys or head_dim), and the values that
            the attention weights multiply, None for a softmax (`on_values` gets them later).
        on_values: called with the values that a softmax's weights are multiplied with.
    """

    def __init__(
        self,
        n_positions: int,
        on_kernel: Callable[[Tensor, Tensor | None], Tensor],
        on_values: Callable[[Tensor], None],
    ) -> None:
        super().__init__()
        self._n_positions = n_positions
        self._on_kernel = on_kernel
        self._on_values = on_values
        self._weights_shape: torch.Size | None = None

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        if func is _SDPA and output.shape[-2] == self._n_positions:  # queries are positions, not layers or experts
            return self._on_kernel(output, kwargs["value"] if "value" in kwargs else args[2])
        if func in _SOFTMAX and self._is_attention(output):
            self._weights_shape = output.shape
            return self._on_kernel(output, None)
        if func in _MATMUL and self._weights_shape is not None and args[0].shape[:-1] == self._weights_shape[:-1]:
            self._weights_shape = None
            self._on_values(args[1])
        return output

    def _is_attention(self, weights: Tensor) -> bool:
        """Whether these are causal weights of queries over keys: zero for later keys, sinks beside them allowed."""
        n = self._n_positions
        if weights.dim() < 3 or weights.shape[-2] != n or weights.shape[-1] < n:
            return False
        return any(not bool(keys.triu(1).any()) for keys in (weights[..., :n], weights[..., -n:]))


class _Observer:
    """First pass: count the heads and value groups of every call."""

    def __init__(self, n_rows: int) -> None:
        self.n_rows = n_rows
        self.calls: list[AttentionCall] = []

    def on_kernel(self, output: Tensor, values: Tensor | None) -> Tensor:
        n_heads, rest = divmod(output.numel(), self.n_rows * output.shape[-1] * output.shape[-2])
        if rest:
            raise ModelError(f"an attention kernel returned shape {tuple(output.shape)}, not one row per sequence")
        self.calls.append(AttentionCall(n_heads, n_heads))
        if values is not None:
            self.on_values(values)
        return output

    def on_values(self, values: Tensor) -> None:
        call = self.calls[-1]
        heads = values.reshape(self.n_rows, -1, *values.shape[-2:])[0]
        repeated = (heads[1:] == heads[:-1]).flatten(1).all(-1)
        n_groups = heads.shape[0] - int(repeated.sum())
        call.n_kv_groups = n_groups if call.n_heads % n_groups == 0 else call.n_heads


class _Switch:
    """Second pass: switch off head h in row h + 1 of every call, and find the linear layer that notices."""

    def __init__(self, calls: list[AttentionCall], n_rows: int, tolerance: float) -> None:
        self._calls = calls
        self._n_rows = n_rows
        self._tolerance = tolerance
        self._next = 0
        self._pending: AttentionCall | None = None

    def on_kernel(self, output: Tensor, values: Tensor | None) -> Tensor:
        self.finish()
        if self._next == len(self._calls):
            raise ModelError("the model ran more attention calls for a larger batch: its heads cannot be told apart")
        call = self._pending = self._calls[self._next]
        self._next += 1
        heads = output.reshape(self._n_rows, -1, *output.shape[-2:]).clone()
        if heads.shape[1] != call.n_heads:
            raise ModelError(f"an attention call has {call.n_heads} heads in one pass and {heads.shape[1]} in another")
        head = torch.arange(call.n_heads, device=heads.device)
        heads[head + 1, head] = 0
        return heads.reshape(output.shape)

    def on_linear(self, name: str, features: Tensor) -> Tensor | None:
        """Recognise the projection by its input; returns that input with all rows equal to row 0."""
        if self._pending is None or features.dim() < 2 or features.shape[0] % self._n_rows:
            return None
        rows = features.reshape(self._n_rows, -1, features.shape[-1])
        scale = float(rows[0].abs().max())
        if float((rows - rows[:1]).abs().max()) <= self._tolerance * scale:
            return None
        call, self._pending = self._pending, None
        call.projection, call.width = name, rows.shape[-1]
        call.is_coupled = _read_slices(name, rows[: call.n_heads + 1], self._tolerance)
        return rows[:1].expand_as(rows).contiguous().view(features.shape)

    def finish(self) -> None:
        """Raise when the last attention call reached no linear layer before the next one began, or the model ended."""
        if self._pending is not None:
            raise ModelError(
                f"attention call {self._next - 1} ({self._pending.n_heads} heads) is not read by a linear layer of "
                "its own: differential, chunked or expert-wise attention has no head slices that could be switched off"
            )


def _read_slices(name: str, rows: Tensor, tolerance: float) -> bool:
    """Prove that slice h of a projection's input belongs to head h; returns whether the heads are coupled.

    Args:
        name: the projection's name, for messages.
        rows: input of shape (n_heads + 1, n_positions, width); head h is off in row h + 1.
    """
    n_heads, width = rows.shape[0] - 1, rows.shape[-1]
    if not bool(torch.isfinite(rows).all()):
        raise ModelError(f"{name} receives values that are not finite: check the model's weights")
    if width % n_heads:
        raise ModelError(f"{name} has {width} input features, which {n_heads} heads do not divide")
    heads = rows.reshape(*rows.shape[:-1], n_heads, width // n_heads).double()
    whole, switched = heads[0], heads[1:]
    scale = whole.abs().max()
    index = torch.arange(n_heads, device=rows.device)
    if float(switched[index, :, index].abs().max()) > 1e-6 * scale:
        raise ModelError(
            f"{name}: switching off a head does not clear its slice of {width // n_heads} input features; "
            "the heads are in another order or are mixed before this layer, and cannot be switched off one by one"
        )
    others = ~torch.eye(n_heads, dtype=torch.bool, device=rows.device)[:, None, :, None]
    if float(((switched - whole) * others).abs().max()) <= tolerance * scale:
        return False
    # A norm over the concatenated heads divides all of them by one number per position when a head falls silent.
    kept = whole * others
    factor = (switched * kept).sum((-2, -1), keepdim=True) / kept.square().sum((-2, -1), keepdim=True).clamp_min(1e-30)
    if float((switched * others - factor * kept).abs().max()) > 10 * tolerance * scale:
        raise ModelError(
            f"{name}: switching off one head changes the slices of others; its heads are mixed before this layer "
            "and cannot be switched off one by one"
        )
    return True


def watch_attention(model: nn.Module, forward: Callable[[int], Tensor], n_positions: int) -> list[AttentionCall]:
    """Run `forward` twice and return every attention call of the model, in order, with its proven projection.

    Args:
        model: the model that `forward` runs, in evaluation mode.
        forward: maps a batch size to the logits, shape (batch, n_positions, vocabulary), of one prompt repeated.
        n_positions: length of that prompt.

    Raises:
        ModelError: heads that no slice of a linear layer's input belongs to.
    """
    observer = _Observer(n_rows=1)
    with KernelWatch(n_positions, observer.on_kernel, observer.on_values):
        logits = forward(1)
    if not observer.calls:
        return []
    exact = logits.dtype in (torch.float32, torch.float64) and is_exact(model)
    n_rows = 1 + max(call.n_heads for call in observer.calls)
    switch = _Switch(observer.calls, n_rows, tolerance=1e-4 if exact else 5e-2)
    with ExitStack() as stack:
        for name, module in model.named_modules():
            if is_linear(module):
                stack.enter_context(_hooked(module, name, switch))
        stack.enter_context(KernelWatch(n_positions, switch.on_kernel, lambda values: None))
        logits = forward(n_rows)
        switch.finish()
    drift = float((logits - logits[:1]).abs().max()) / max(float(logits[0].abs().max()), 1e-30)
    if not drift <= (1e-3 if exact else 0.25):
        raise ModelError(
            f"switched-off heads still change the logits (by {drift:.1e} of their size) when every output projection "
            "is given the unchanged input: some head's output flows around its projection"
        )
    return observer.calls


def _hooked(module: nn.Module, name: str, switch: _Switch) -> Any:
    def equalise(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if not args or not isinstance(args[0], Tensor):
            return None
        features = switch.on_linear(name, args[0])
        return None if features is None else (features, *args[1:])

    return module.register_forward_pre_hook(equalise, prepend=True)  # before the gates of a masked model
