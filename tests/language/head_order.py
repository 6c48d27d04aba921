"""Prove, from the attention matrices a model reports, that slice h of a projection's input is attention head h."""

from __future__ import annotations

import copy
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fairmend.errors import ModelError
from fairmend.language.backend.forward import plain
from fairmend.language.backend.versions import required
from fairmend.language.heads.attention_probe import KernelWatch, is_linear
from fairmend.language.heads.heads import N_POSITIONS, HeadMap, HeadSite, probe_ids, probing, run_probe

LARGEST_RESIDUAL = 1e-4  # right orders stay under 1e-7, also in float32 arithmetic, wrong ones above 1e-2
_CHANGED = 1  # the position whose input differs between the two rows


@dataclass(frozen=True, slots=True)
class HeadOrder:
    """The outcome of `prove_head_order`.

    Attributes:
        residuals: per output projection the largest relative change of a head's values that another position caused;
            float64 rounding when the order is right.
        unread: why a projection's attention matrices could not be read, by its name.
    """

    residuals: dict[str, float]
    unread: dict[str, str]


def prove_head_order(model: nn.Module, head_map: HeadMap) -> HeadOrder:
    """Prove that every slice of `head_map` belongs to the attention head of the same number.

    With A_h the attention matrix that the model itself reports for head h (eager kernel, float64) and z_h the h-th
    slice of the projection's input, z_h = A_h V_h must hold with values V_h that at one position do not depend on the
    input at another position; with the matrix of another head it does not. Where an elementwise gate or a convolution
    over values breaks that identity, z_h must be A_h V_h up to a factor that depends on the position's own input only,
    or that is one number per position (attention sinks). Works on a float64 copy of the model (8 bytes per parameter),
    float32 where an architecture insists; the model itself is left alone.

    Raises:
        ModelError: heads in another order, or mixed before the projection, as by BitNet's norm over all heads.
    """
    inside = plain(model)
    names = [site.name for site in head_map.sites]
    head_map.modules(inside)
    unreadable = _why_not_copied(inside)
    if unreadable:
        return HeadOrder({}, dict.fromkeys(names, unreadable))
    twin = copy.deepcopy(inside)
    with probing(twin):
        for choose_kernel in ("set_attn_implementation", "set_experts_implementation"):
            required(twin, choose_kernel)("eager")
        try:
            attentions, inputs, values = _observe(twin.double(), head_map)
        except ModelError:  # GPT-2 with reorder_and_upcast_attn insists on float32
            attentions, inputs, values = _observe(twin.float(), head_map)
    if len(attentions) != len(names):
        reason = f"the model reports {len(attentions)} attention matrices for {len(names)} projections"
        return HeadOrder({}, dict.fromkeys(names, reason))
    residuals, unread = {}, {}
    for index, site in enumerate(head_map.sites):
        weights = attentions[index]
        if weights.shape != (2, site.n_heads, N_POSITIONS, N_POSITIONS):
            unread[site.name] = f"the model reports attention of shape {tuple(weights.shape)}"
            continue
        slices = inputs[site.name].double().reshape(2, N_POSITIONS, site.n_heads, site.head_dim).transpose(1, 2)
        seen = values[index] if len(values) == len(names) and not site.is_coupled else None
        residuals[site.name] = _residual(weights.double(), slices, seen)
        if not residuals[site.name] < LARGEST_RESIDUAL:
            raise ModelError(_explain(site, weights.double(), slices, residuals[site.name]))
    return HeadOrder(residuals, unread)


def _why_not_copied(model: nn.Module) -> str:
    for name, parameter in model.named_parameters():
        if parameter.is_meta or not parameter.is_floating_point():
            return f"{name} is quantised or off-loaded, so the model has no float64 copy"
    return ""


def _observe(model: nn.Module, head_map: HeadMap) -> tuple[list[Tensor], dict[str, Tensor], list[Tensor]]:
    """Attention matrices, projection inputs and values of two rows that differ at one position in every layer."""
    generator = torch.Generator().manual_seed(0)
    names = {site.name for site in head_map.sites}
    inputs: dict[str, Tensor] = {}
    values: list[Tensor] = []

    def keep(name: str) -> Any:
        return lambda _, args: inputs.__setitem__(name, args[0].detach().clone())

    def force(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        # Deeper layers see mixed positions; giving both rows the same input but for one position undoes the mixing.
        features = args[0] if args else None
        if not isinstance(features, Tensor) or features.shape[:-1].numel() != 2 * N_POSITIONS:
            return None
        rows = features.reshape(2, N_POSITIONS, -1)
        other = rows[0].clone()
        noise = torch.randn(other.shape[-1:], generator=generator, dtype=torch.float64)
        other[_CHANGED] = noise.to(other) * other.std()
        return (torch.stack([rows[0], other]).reshape(features.shape), *args[1:])

    with ExitStack() as stack:
        for name, module in model.named_modules():
            if name in names:
                stack.enter_context(module.register_forward_pre_hook(keep(name), prepend=True))
            elif is_linear(module):
                stack.enter_context(module.register_forward_pre_hook(force))
        stack.enter_context(KernelWatch(N_POSITIONS, lambda output, _: output, values.append))
        outputs = run_probe(model, probe_ids(model, 2), output_attentions=True)
    reported = required(outputs, "attentions")  # None: the architecture reports none, and its heads stay unread
    # Layers of hybrids that do not attend have None in their place.
    return [weights for weights in reported or () if isinstance(weights, Tensor)], inputs, values


def _residual(weights: Tensor, slices: Tensor, values: Tensor | None) -> float:
    """How far the heads' slices are from attention over values of unchanged positions: the largest relative misfit.

    Args:
        weights: attention, shape (2, n_heads, n_positions, n_positions).
        slices: projection input, shape (2, n_heads, n_positions, head_dim).
        values: what the weights were multiplied with, shape (2, n_heads, n_positions, head_dim), when it was seen.
    """
    direct = _misfit(weights, slices)
    if direct < LARGEST_RESIDUAL or values is None or values.shape != slices.shape:
        return direct
    mixed = weights @ values.double()
    # Equal gates in both rows mean slices[0] / mixed[0] == slices[1] / mixed[1], written without the division.
    crossed = torch.stack([slices[0] * mixed[1], slices[1] * mixed[0]])
    factor = (slices * mixed).sum(-1, keepdim=True) / mixed.square().sum(-1, keepdim=True).clamp_min(1e-300)
    rest = (slices - factor * mixed).abs().amax((0, 2, 3)) / slices.abs().amax((0, 2, 3)).clamp_min(1e-300)
    return min(direct, _change(crossed), float(rest.max()) if slices.shape[-1] > 1 else direct)


def _misfit(weights: Tensor, slices: Tensor) -> float:
    """Relative residual, the worst over heads, of z_row = A_row V with the same V in both rows but at one position.

    Solved by least squares in V and the change at that position, not as A^-1 z: sharp attention has weights near zero
    on its diagonal, and the inverse would magnify rounding.
    """
    shift = weights[..., _CHANGED : _CHANGED + 1]
    system = torch.cat(
        [torch.cat([weights[0], torch.zeros_like(shift[0])], -1), torch.cat([weights[1], shift[1]], -1)], -2
    )
    wanted = torch.cat([slices[0], slices[1]], -2)
    misfit = system @ (torch.linalg.pinv(system) @ wanted) - wanted
    return float((misfit.abs().amax((-2, -1)) / wanted.abs().amax((-2, -1)).clamp_min(1e-300)).max())


def _change(rows: Tensor) -> float:
    """Largest relative difference between two rows at the positions that were not changed, over heads."""
    unchanged = [position for position in range(N_POSITIONS) if position != _CHANGED]
    kept = rows[:, :, unchanged]
    scale = kept.abs().amax((0, 2, 3)).clamp_min(1e-300)
    return float(((kept[0] - kept[1]).abs().amax((1, 2)) / scale).max())


def _explain(site: HeadSite, weights: Tensor, slices: Tensor, residual: float) -> str:
    if site.is_coupled:
        return (
            f"{site.name}: the head order cannot be proven (residual {residual:.1e}), because a norm over all heads "
            "sits before the projection; the heads' slices are right, but dropping one rescales the others"
        )
    for head in range(site.n_heads):
        for other in range(site.n_heads):
            if other != head and _misfit(weights[:, [other]], slices[:, [head]]) < LARGEST_RESIDUAL:
                return (
                    f"{site.name}: the heads are in another order: slice {head} of the projection's input belongs to "
                    f"attention head {other}, not {head}"
                )
    return (
        f"{site.name}: the head order cannot be proven: the values of a head change with other positions' inputs "
        f"(residual {residual:.1e}); the heads are in another order or are mixed before the projection"
    )
