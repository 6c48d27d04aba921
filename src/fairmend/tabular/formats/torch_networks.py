"""Read a torch module as a network, and bake a repair into a copy of the module.

The module's real data flow is traced with torch.fx on a copy in double precision, and the network read from it is
compared with that copy on random rows: a module that computes something else is refused, never misread.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrize, prune

from fairmend.errors import ModelError
from fairmend.masks import Mask
from fairmend.tabular.formats.torch_tracing import attempt, trace
from fairmend.tabular.formats.wrappers import plain_module, way_inside
from fairmend.tabular.networks.activations import FloatArray
from fairmend.tabular.networks.baking import silence
from fairmend.tabular.networks.chains import Chain, Link
from fairmend.tabular.networks.networks import Drop, Network, emitted


def read_torch(module: nn.Module) -> Network:
    """The network that a torch module computes in eval mode. The module is not touched.

    Of torch.compile, data parallelism and weight averaging the module inside is read.

    Batch normalisation is folded; a unit is the output of an activation, before a batch normalisation after it.

    Raises:
        ModelError: a module or operation that is not supported, named; a module used twice; or outputs that differ
            from what its layers say.
    """
    return _read(plain_module(module))[1]


def bake_torch(module: nn.Module, mask: Mask, drop: Drop = "output") -> nn.Module:
    """A copy of the module in which the dropped neurons are silent and the dials are in the last bias.

    Of torch.compile, data parallelism and weight averaging it is a copy of the module inside.

    Every weight that the repair does not concern keeps its bits, and the copy its architecture, dtype, device and
    mode; a Linear without bias gets one only where the repair needs it.

    Raises:
        ModelError: as `read_torch`, or a last layer whose outputs a batch normalisation multiplies by 0.
        InputError: a mask of another space, or drop="clamp" without constants (see `emitted`).
    """
    module = plain_module(module)
    chain, network, casts = _read(module)
    links = chain.links
    weights, biases = [link.weight.copy() for link in links], [link.bias.copy() for link in links]
    constants = network.by_layer(emitted(network, drop))
    # what the next Linear receives from a silent neuron has passed the batch normalisation between the two
    received = [values * link.scale_in + link.shift_in for values, link in zip(constants, links[1:], strict=True)]
    silence(weights, biases, network.dropped(mask), received)
    shift, scale = network.shift(mask), links[-1].scale_out
    if (scale[shift != 0] == 0).any():
        raise ModelError(f"the batch normalisation after {links[-1].name} multiplies an output by 0: fold it first")
    biases[-1] += np.divide(shift, scale, out=np.zeros_like(shift), where=shift != 0)
    repaired = copy.deepcopy(module)
    for link, weight, bias in zip(links, weights, biases, strict=True):
        _write(repaired, link, weight, bias)
    _prove(repaired, chain, network, casts, mask, drop)
    return repaired


def _write(module: nn.Module, link: Link, weight: FloatArray, bias: FloatArray) -> None:
    """Put a weight and a bias that changed into the Linear that the link names."""
    linear = module.get_submodule(link.name)
    assert isinstance(linear, nn.Linear)
    with torch.no_grad():
        if not np.array_equal(weight, link.weight):
            linear.weight.copy_(torch.tensor(weight))
        if np.array_equal(bias, link.bias):
            return
        if linear.bias is None:
            linear.bias = nn.Parameter(linear.weight.new_zeros(len(bias)), linear.weight.requires_grad)
        linear.bias.copy_(torch.tensor(bias))


def _read(module: nn.Module) -> tuple[Chain, Network, bool]:
    """The steps of a module, the network that they make, and whether the module casts its values."""
    if not isinstance(module, nn.Module):
        raise ModelError(f"expected a torch.nn.Module, got {type(module).__name__}{way_inside(module)}")
    _require_plain(module)
    chain, casts = trace(_on_cpu(module, double=True))
    network = chain.network()
    _prove(module, chain, network, casts)
    return chain, network, casts


def _require_plain(module: nn.Module) -> None:
    """Refuse modules that torch's own tools have changed into something else, with the way back."""
    for name, part in module.named_modules():
        kind, label = type(part), name or "the module"
        get = f"module.get_submodule({name!r})" if name else "module"
        if isinstance(part, torch.jit.ScriptModule):
            raise ModelError(
                f"{label} is a TorchScript module, whose layers cannot be changed: give the module it "
                "was made of, or load its state_dict into one"
            )
        if ".quantized." in f"{kind.__module__}.":
            raise ModelError(
                f"{label} is a quantised {kind.__module__}.{kind.__name__}: give the module from before the "
                "quantisation, and quantise the repaired one"
            )
        if parametrize.is_parametrized(part):
            computed, _ = next(part.get_submodule("parametrizations").named_children())
            raise ModelError(
                f"{label} is a {kind.__name__}, whose weights are computed: bake them in before, "
                f"torch.nn.utils.parametrize.remove_parametrizations({get}, {computed!r})"
            )
        weights = {key for key, _ in (*part.named_parameters(recurse=False), *part.named_buffers(recurse=False))}
        masked = next((key.removesuffix("_mask") for key in weights if key.endswith("_mask")), "weight")
        if not list(part.children()) and prune.is_pruned(part):
            raise ModelError(
                f"{label} is pruned by a mask beside its weights: bake it in before, "
                f"torch.nn.utils.prune.remove({get}, {masked!r})"
            )
        for norm, own in (("weight_norm", "weight_g"), ("spectral_norm", "weight_u")):
            if own in weights:
                raise ModelError(
                    f"{label} has weights under {norm}: bake it in before, torch.nn.utils.remove_{norm}({get})"
                )


def _on_cpu(module: nn.Module, double: bool) -> nn.Module:
    """A copy to run and read: in double precision, so that rounding does not hide a real difference, or as it is."""
    dtype = torch.float64 if double else None
    return attempt(
        lambda original: copy.deepcopy(original).eval().to(device="cpu", dtype=dtype),
        module,
        lambda error: (
            f"{type(module).__name__} cannot be copied to the CPU in double precision ({error}): quantised, "
            "off-loaded or uninitialised weights are not supported"
        ),
    )


def _prove(
    module: nn.Module, chain: Chain, network: Network, casts: bool, mask: Mask | None = None, drop: Drop = "output"
) -> None:
    # a module that casts its values to one precision runs in its own only
    copied = _on_cpu(module, double=not casts)
    dtype = next(parameter.dtype for parameter in copied.parameters() if parameter.is_floating_point())
    precisions = [torch.finfo(parameter.dtype).eps for parameter in module.parameters()]

    def run(rows: FloatArray) -> FloatArray:
        with torch.no_grad():
            return np.asarray(copied(torch.tensor(rows).to(dtype)).double().numpy())

    try:
        # repaired biases of a half-precision module are rounded to half precision
        chain.prove(network, run, max(1e-4, 16 * max(precisions)), mask, drop)
    except RuntimeError as error:
        raise ModelError(f"{type(module).__name__} fails on rows of {network.n_features} features: {error}") from error
