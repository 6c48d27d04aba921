"""Follow the data flow of a torch module, operation by operation."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
import torch
from torch import fx, nn

from fairmend.errors import ModelError
from fairmend.tabular.networks.activations import Activation, FloatArray
from fairmend.tabular.networks.chains import Chain, row_of

Made = TypeVar("Made")

SUPPORTED = (
    "supported is one chain of Linear, BatchNorm1d, Dropout, Flatten and Identity with ReLU, LeakyReLU, GELU, SiLU, "
    "Tanh, Sigmoid or ELU (modules or functions) and arithmetic with constants, ending in logits, Sigmoid on one "
    "output, Softmax or LogSoftmax"
)


def trace(module: nn.Module) -> tuple[Chain, bool]:
    """The linear layers, scalings and activations of a module on the CPU in eval mode; whether it casts its values.

    Raises:
        ModelError: a module or operation that is not supported, or does not continue one chain.
    """
    walk = _Walk(module)
    return walk.chain, walk.casts


class _Walk:
    """One pass over a traced module, node by node, into a `Chain`."""

    def __init__(self, module: nn.Module) -> None:
        self.chain = Chain(SUPPORTED)
        self.casts = False
        self._modules = dict(module.named_modules(remove_duplicate=False))
        self._used: dict[int, str] = {}
        graph = attempt(
            lambda traced: fx.Tracer().trace(traced),
            module,
            lambda error: (
                f"the data flow of {type(module).__name__} cannot be traced ({str(error).strip()[:200]}): {SUPPORTED}"
            ),
        )
        current: fx.Node | None = None
        aside: set[fx.Node] = set()  # nodes that only read the shape of the current value
        self._constants: dict[fx.Node, Any] = {}  # buffers and parameters used directly, and what is made of them
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
            if node.op == "get_attr":
                self._constants[node] = operator.attrgetter(str(node.target))(module)
                continue
            sources = [source for source in node.all_input_nodes if source not in aside]
            if sources and all(source in self._constants for source in sources):
                self._constants[node] = self._computed(node)
                continue
            sources = [source for source in sources if source not in self._constants]
            if current is None or sources not in ([current], []):
                raise ModelError(f"{_describe(node, self._modules)} is not one link of a chain: {SUPPORTED}")
            if not sources or _reads_shape(node):
                aside.add(node)
            else:
                self._step(node, current)
                current = node

    def _computed(self, node: fx.Node) -> Any:
        """The value of an operation on constants alone."""
        args, kwargs = fx.map_arg((node.args, node.kwargs), lambda source: self._constants[source])
        if node.op == "call_function":
            return node.target(*args, **kwargs)  # type: ignore[operator]
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        raise ModelError(f"{_describe(node, self._modules)} computes a constant: {SUPPORTED}")

    def _step(self, node: fx.Node, current: fx.Node) -> None:
        if node.op == "call_module":
            self._module(str(node.target), self._modules[str(node.target)])
            return
        name = _function_name(node)
        if name in _ARITHMETIC:
            self._arithmetic(node, current)
            return
        if name in _CASTS:
            self._cast(node)
            return
        direct = next((source for source in node.all_input_nodes if source in self._constants), None)
        if direct is not None:
            raise ModelError(f"{_describe(direct, self._modules)} is not one link of a chain: {SUPPORTED}")
        if not self._operation(_describe(node, self._modules), name, _arguments(node)):
            raise ModelError(f"{_describe(node, self._modules)}: {SUPPORTED}")

    def _arithmetic(self, node: fx.Node, current: fx.Node) -> None:
        """An operation with one constant."""
        label, kind = _describe(node, self._modules), _ARITHMETIC[_function_name(node)]
        operands = [*node.args, *(node.kwargs[key] for key in ("input", "other") if key in node.kwargs)]
        others = {key: value for key, value in node.kwargs.items() if key not in ("input", "other", "alpha")}
        if kind == "neg" and len(operands) == 1:
            self.chain.scaling(label, -1.0, 0.0)
            return
        if len(operands) != 2 or any(value is not None for value in others.values()) or operands.count(current) != 1:
            raise ModelError(f"{label} is more than arithmetic with one constant: {SUPPORTED}")
        first = operands[0] is current
        value = self._row(label, operands[1 if first else 0])
        if "alpha" in node.kwargs:  # of the second operand
            if not first:
                raise ModelError(f"{label} multiplies its input by alpha: {SUPPORTED}")
            value = value * self._row(label, node.kwargs["alpha"])
        if kind == "rsub":
            kind, first = "sub", not first
        self.chain.arithmetic(label, kind, value, first)

    def _resolved(self, operand: Any) -> Any:
        """The value of an operand that is a node of constants; any other operand as it is."""
        return self._constants.get(operand, operand) if isinstance(operand, fx.Node) else operand

    def _row(self, label: str, operand: Any) -> FloatArray:
        """A constant that is one number, or one number per neuron."""
        value = self._resolved(operand)
        if isinstance(value, torch.Tensor):
            value = value.detach().double().numpy()
        if not isinstance(value, (bool, int, float, np.ndarray, np.generic)):
            raise ModelError(f"{label} has the operand {operand!r}: {SUPPORTED}")
        return row_of(label, np.asarray(value, dtype=np.float64))

    def _cast(self, node: fx.Node) -> None:
        """A change of precision or device; to whole numbers it would change values."""
        operands = [self._resolved(value) for value in (*node.args[1:], *node.kwargs.values())]
        for operand in operands:
            dtype = operand.dtype if isinstance(operand, torch.Tensor) else operand
            if isinstance(dtype, torch.dtype) and not dtype.is_floating_point:
                raise ModelError(f"{_describe(node, self._modules)} casts to {dtype}, which rounds: {SUPPORTED}")
        if _function_name(node) == "type" and not all(isinstance(operand, torch.dtype) for operand in operands):
            raise ModelError(f"{_describe(node, self._modules)} needs a torch.dtype: {SUPPORTED}")
        self.casts = True

    def _module(self, name: str, module: Any) -> None:
        kind = type(module)
        if kind is nn.Linear:
            self._parameters(name, module)
            bias = None if module.bias is None else _array(module.bias)
            self.chain.linear(name, _array(module.weight), bias)
        elif kind is nn.BatchNorm1d:
            self._parameters(name, module)
            self.chain.scaling(name, *_normalisation(name, module))
        elif getattr(nn, kind.__name__, None) is not kind or not self._operation(name, kind.__name__, vars(module)):
            raise ModelError(f"{name or 'the module'} is a {kind.__name__}: {SUPPORTED}")

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

    def _operation(self, label: str, operator: str, options: Mapping[str, Any]) -> bool:
        """Add what a module or function computes by its name and options; False for one that is not known."""
        plain = operator.replace("_", "").lower()
        if plain in ("softmax", "logsoftmax"):
            if options.get("dim") not in (None, 1, -1):
                raise ModelError(
                    f"{label} is a softmax over dimension {options['dim']}: supported is one over the outputs, dim=1"
                )
            self.chain.end(label, "softmax" if plain == "softmax" else "log_softmax")
        elif plain in ("dropout", "alphadropout"):
            if options.get("training", True):
                raise ModelError(f"{label} also drops in eval mode: pass training=self.training")
        elif (activation := Activation.of(plain, options)) is not None:
            self.chain.activate(label, activation)
        else:
            return plain in _SHAPES
        return True


# modules, functions and methods that change the shape only; that they keep one row per row is proved by running them
_SHAPES = frozenset(
    {"flatten", "identity", "squeeze", "view", "reshape", "getitem", "contiguous", "ravel", "clone", "detach"}
)
# functions and methods by what they compute; those in place have lost their last letter "_"
_ARITHMETIC = {
    **dict.fromkeys(("add", "iadd"), "add"),
    **dict.fromkeys(("sub", "isub", "subtract"), "sub"),
    **dict.fromkeys(("mul", "imul", "multiply"), "mul"),
    **dict.fromkeys(("div", "truediv", "itruediv", "divide", "true_divide"), "div"),
    **dict.fromkeys(("neg", "negative"), "neg"),
    "rsub": "rsub",
}
_CASTS = frozenset({"float", "double", "half", "bfloat16", "to", "type", "type_as", "cpu", "cuda"})
# positional parameters after the input, as torch.nn.functional declares them
_POSITIONS = {
    "softmax": ("dim",),
    "log_softmax": ("dim",),
    "dropout": ("p", "training"),
    "alpha_dropout": ("p", "training"),
    "leaky_relu": ("negative_slope",),
    "elu": ("alpha",),
}


def attempt(step: Callable[[nn.Module], Made], module: nn.Module, fault: Callable[[Exception], str]) -> Made:
    """A step of torch on a module; of one that fails, whether the module is at fault or a change of torch.

    Raises:
        ModelError: `fault` of what the step raised; or torch fails on a plain layer as well.
    """
    try:
        return step(module)
    except Exception as error:  # a step runs or copies foreign code, which may raise anything
        try:
            step(nn.Linear(1, 1))
        except Exception as again:  # what a changed library raises is not known
            raise ModelError(
                f"torch {torch.__version__} fails even on a plain Linear ({again}): the library has changed; install a "
                "version that fairmend supports"
            ) from error
        raise ModelError(fault(error)) from error


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
    with np.errstate(invalid="ignore"):  # a signalling NaN warns when widened; Layer refuses it
        return np.array(tensor.detach().numpy(), dtype=np.float64)
