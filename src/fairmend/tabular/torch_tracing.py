"""Follow the data flow of a torch module, operation by operation."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import numpy as np

from fairmend.errors import ModelError
from fairmend.tabular.activations import Activation, FloatArray
from fairmend.tabular.chains import Chain

if TYPE_CHECKING:
    import torch
    from torch import fx, nn

SUPPORTED = (
    "supported is one chain of Linear, BatchNorm1d, Dropout, Flatten and Identity with ReLU, LeakyReLU, GELU, SiLU, "
    "Tanh, Sigmoid or ELU (modules or functions), ending in logits, Sigmoid on one output, Softmax or LogSoftmax"
)


def trace(module: nn.Module) -> Chain:
    """The linear layers, scalings and activations of a module on the CPU in eval mode.

    Raises:
        ModelError: a module or operation that is not supported, or does not continue one chain.
    """
    return _Walk(module).chain


class _Walk:
    """One pass over a traced module, node by node, into a `Chain`."""

    def __init__(self, module: nn.Module) -> None:
        self.chain = Chain()
        self._modules = dict(module.named_modules(remove_duplicate=False))
        self._used: dict[int, str] = {}
        graph = _graph(module)
        current: fx.Node | None = None
        aside: set[fx.Node] = set()  # nodes that only read the shape of the current value
        for node in graph.nodes:
            if node.op == "placeholder":
                if current is not None:
                    raise ModelError(f"the module takes a second input {node.target!r}: {SUPPORTED}")
                current = node
                continue
            if node.op == "output":
                if node.args != (current,):
                    raise ModelError(f"the module returns {node.args[0]!r}: return one tensor of logits; {SUPPORTED}")
                return
            sources = [source for source in node.all_input_nodes if source not in aside]
            if node.op == "get_attr" or current is None or sources not in ([current], []):
                raise ModelError(f"{_describe(node, self._modules)} is not one link of a chain: {SUPPORTED}")
            if not sources or _reads_shape(node):
                aside.add(node)
            else:
                self._step(node)
                current = node

    def _step(self, node: fx.Node) -> None:
        if node.op == "call_module":
            self._module(str(node.target), self._modules[str(node.target)])
        else:
            self._function(node)

    def _module(self, name: str, module: Any) -> None:
        from torch import nn

        kind = type(module)
        if kind is nn.Linear:
            self._parameters(name, module)
            bias = None if module.bias is None else _array(module.bias)
            self.chain.linear(name, _array(module.weight), bias)
        elif kind is nn.BatchNorm1d:
            self._parameters(name, module)
            self.chain.scaling(name, *_normalisation(name, module))
        elif kind is nn.Softmax or kind is nn.LogSoftmax:
            self._softmax(name, module.dim, "softmax" if kind is nn.Softmax else "log_softmax")
        elif isinstance(module, (nn.Dropout, nn.AlphaDropout, nn.Flatten, nn.Identity)):
            return
        else:
            activation = _activation_module(module)
            if activation is None:
                raise ModelError(f"{name or 'the module'} is a {kind.__name__}: {SUPPORTED}")
            self.chain.activate(name, activation)

    def _parameters(self, name: str, module: nn.Module) -> None:
        """Refuse parameters met before: a change of one layer would change the other."""
        for parameter in module.parameters():
            owner = self._used.get(id(parameter))
            if owner is not None:
                fault = "is used twice" if owner == name else f"shares its weights with {owner}"
                raise ModelError(
                    f"{name} {fault}: tied layers cannot be repaired one by one; give each use a copy of its own"
                )
        self._used.update((id(parameter), name) for parameter in module.parameters())

    def _softmax(self, name: str, dim: int | None, head: Any) -> None:
        if dim not in (None, 1, -1):
            raise ModelError(f"{name} is a softmax over dimension {dim}: supported is one over the outputs, dim=1")
        self.chain.end(name, head)

    def _function(self, node: fx.Node) -> None:
        name, label = _function_name(node), _describe(node, self._modules)
        arguments = _arguments(node)
        if name in ("softmax", "log_softmax"):
            self._softmax(label, arguments.get("dim"), name)
        elif name in ("dropout", "alpha_dropout"):
            if arguments.get("training", True):
                raise ModelError(f"{label} also drops in eval mode: pass training=self.training")
        elif name in _ACTIVATIONS:
            self.chain.activate(label, _activation_function(name, arguments))
        elif name not in _SHAPES:
            raise ModelError(f"{label}: {SUPPORTED}")


# functions and tensor methods that change the shape only; that they keep one row per row is proved by running them
_SHAPES = frozenset({"flatten", "squeeze", "view", "reshape", "getitem", "contiguous", "ravel"})
_ACTIVATIONS = {
    "relu": "relu",
    "leaky_relu": "leaky_relu",
    "gelu": "gelu",
    "silu": "silu",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
    "elu": "elu",
}
# positional parameters after the input, as torch.nn.functional declares them
_POSITIONS = {
    "softmax": ("dim",),
    "log_softmax": ("dim",),
    "dropout": ("p", "training"),
    "alpha_dropout": ("p", "training"),
    "leaky_relu": ("negative_slope",),
    "elu": ("alpha",),
}


def _graph(module: nn.Module) -> fx.Graph:
    from torch import fx

    try:
        return fx.Tracer().trace(module)
    except Exception as error:  # tracing runs the module's own forward, which may raise anything
        raise ModelError(
            f"the data flow of {type(module).__name__} cannot be traced ({str(error).strip()[:200]}): {SUPPORTED}"
        ) from error


def _reads_shape(node: fx.Node) -> bool:
    if node.op == "call_method":
        return node.target in ("size", "dim")
    return node.target is getattr and node.args[1] == "shape"


def _function_name(node: fx.Node) -> str:
    if node.target is operator.getitem:
        return "getitem"
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
    return name.rstrip("_")  # relu_ is relu in place


def _describe(node: fx.Node, modules: dict[str, nn.Module]) -> str:
    if node.op == "call_module":
        return f"module {node.target!r} ({type(modules[str(node.target)]).__name__})"
    if node.op == "get_attr":
        return f"the direct use of {node.target!r} in forward"
    return f"operation {_function_name(node)!r}"


def _arguments(node: fx.Node) -> dict[str, Any]:
    positions = _POSITIONS.get(_function_name(node), ())
    return dict(zip(positions, node.args[1:], strict=False)) | dict(node.kwargs)


def _activation_function(name: str, arguments: dict[str, Any]) -> Activation:
    if name == "leaky_relu":
        return Activation(name, float(arguments.get("negative_slope", 0.01)))
    if name == "elu":
        return Activation(name, float(arguments.get("alpha", 1.0)))
    if name == "gelu" and arguments.get("approximate", "none") == "tanh":
        return Activation("gelu_tanh")
    return Activation(_ACTIVATIONS[name])


def _activation_module(module: nn.Module) -> Activation | None:
    from torch import nn

    if isinstance(module, nn.LeakyReLU):
        return Activation("leaky_relu", float(module.negative_slope))
    if isinstance(module, nn.ELU):
        return Activation("elu", float(module.alpha))
    if isinstance(module, nn.GELU):
        return Activation("gelu_tanh" if module.approximate == "tanh" else "gelu")
    plain: dict[type[nn.Module], str] = {nn.ReLU: "relu", nn.SiLU: "silu", nn.Tanh: "tanh", nn.Sigmoid: "sigmoid"}
    name = plain.get(type(module))
    return None if name is None else Activation(name)


def _normalisation(name: str, module: Any) -> tuple[FloatArray, FloatArray]:
    """Scale and shift of a batch normalisation in eval mode."""
    if module.running_mean is None or module.running_var is None:
        raise ModelError(f"{name} keeps no running statistics, so its output depends on the batch: not supported")
    scale = 1.0 / np.sqrt(_array(module.running_var) + module.eps)
    shift = -_array(module.running_mean) * scale
    if module.affine:
        weight = _array(module.weight)
        scale, shift = scale * weight, shift * weight + _array(module.bias)
    return scale, shift


def _array(tensor: torch.Tensor) -> FloatArray:
    return np.array(tensor.detach().numpy(), dtype=np.float64)
