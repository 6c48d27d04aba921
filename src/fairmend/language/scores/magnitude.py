"""How large the weights of every head are: a baseline that looks at no data.

FASP's baseline (Zayed et al., AAAI 2024) prunes the heads whose weights have the smallest L2 norm: the rows of the
query, key and value projections that make the head, and the slice of the output projection that reads it.

Which rows those are is asked of the model, not of a table of architectures: a row belongs to a head if the head's
output has a gradient with respect to it. So fused projections, interleaved heads and shared key-value groups need no
special case; a row that serves several heads counts for each of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from fairmend.language.backend.forward import plain
from fairmend.language.heads.folding import projection_weight
from fairmend.language.heads.heads import HeadMap, HeadSite, find_heads, probe_ids, probing, run_probe

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class HeadMagnitudes:
    """The L2 norm of every head's weights.

    Attributes:
        values: shape (n_heads,).
        without_rows: layers in which only the slice of the output projection counts, because no row of a query, key or
            value projection could be told to belong to single heads (a norm over all heads, weights of another kind).
    """

    values: Floats
    without_rows: tuple[str, ...]


def head_magnitudes(model: nn.Module, head_map: HeadMap | None = None) -> HeadMagnitudes:
    """Measure the L2 norm of every head's rows and of its slice of the output projection; biases do not count.

    One forward pass of five tokens and one backward pass per head through its own attention layer. Weights, gradients,
    modes and hooks are as before.

    Raises:
        ModelError: heads that cannot be found, or weights that are quantised or off-loaded.
    """
    inside = plain(model)
    found = find_heads(inside) if head_map is None else head_map
    projections = found.modules(inside)
    candidates = [_upstream(inside, site) for site in found.sites]
    features: dict[int, Tensor] = {}

    def catch(index: int) -> object:
        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            features.setdefault(index, args[0])

        return projections[index].register_forward_pre_hook(hook)

    squares: list[Floats] = []
    without_rows = []
    hooks = [catch(index) for index in range(len(projections))]
    try:
        every = [weight for weights in candidates for weight in weights]
        with _differentiable(every), probing(inside), torch.enable_grad():
            run_probe(inside, probe_ids(inside, 1))
            for index, site in enumerate(found.sites):
                rows = _row_squares(features[index], site, candidates[index])
                without_rows += [] if rows is not None else [site.name]
                slices = _slice_squares(projections[index], site)
                squares.append(slices if rows is None else slices + rows)
    finally:
        for hook in hooks:
            hook.remove()  # type: ignore[attr-defined]
    return HeadMagnitudes(np.sqrt(np.concatenate(squares)), tuple(without_rows))


def _upstream(model: nn.Module, site: HeadSite) -> list[nn.Parameter]:
    """The matrices of the attention module, without its output projection."""
    output = projection_weight(model.get_submodule(site.name), site)
    attention = model.get_submodule(site.name.rpartition(".")[0])
    return [
        parameter
        for parameter in attention.parameters()
        if parameter.dim() == 2 and parameter is not output and parameter.is_floating_point()
    ]


def _row_squares(features: Tensor, site: HeadSite, weights: list[nn.Parameter]) -> Floats | None:
    """Sum of squares of the rows that make each head, (n_heads,); None if they cannot be told apart."""
    if site.is_coupled or not weights or not features.requires_grad:
        return None
    flat = features.reshape(-1, features.shape[-1])
    direction = torch.linspace(0.5, 1.5, flat.shape[0] * site.head_dim, device=flat.device, dtype=flat.dtype)
    squares = np.zeros(site.n_heads)
    for head, part in enumerate(torch.split(flat, site.head_dim, dim=-1)):
        gradients = torch.autograd.grad(
            (part * direction.reshape(part.shape)).sum(), weights, retain_graph=True, allow_unused=True
        )
        for weight, gradient in zip(weights, gradients, strict=True):
            if gradient is not None:
                squares[head] += _touched(weight.detach(), gradient)
    return squares if bool((squares > 0).all()) else None


def _touched(weight: Tensor, gradient: Tensor) -> float:
    """Sum of squares of the outputs, rows or (Conv1D) columns, that have a gradient.

    The inputs of a projection are the same for all heads, so the dimension along which some entries have no gradient
    is that of the outputs.
    """
    used = gradient != 0
    rows, columns = used.any(dim=1), used.any(dim=0)
    chosen = weight.double() * rows[:, None] * columns[None]
    return float(chosen.square().sum())


def _slice_squares(module: nn.Module, site: HeadSite) -> Floats:
    """Sum of squares of each head's slice of the output projection, (n_heads,)."""
    weight = projection_weight(module, site).detach().double()
    by_input = weight.square().sum(dim=1 if isinstance(module, Conv1D) else 0)
    sums: Floats = by_input.reshape(site.n_heads, site.head_dim).sum(dim=1).cpu().numpy()
    return sums


@contextmanager
def _differentiable(weights: list[nn.Parameter]) -> Iterator[None]:
    """Let gradients flow to these weights inside a with-block; their own gradients are not touched."""
    before = [weight.requires_grad for weight in weights]
    try:
        for weight in weights:
            weight.requires_grad_(True)
        yield
    finally:
        for weight, required in zip(weights, before, strict=True):
            weight.requires_grad_(required)
