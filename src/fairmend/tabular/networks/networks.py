"""The plain description of a network that everything else in this wing reads, drops neurons of, and saves.

A dropped neuron emits a constant, whatever its input. What differs between the meanings of "drop" is the constant:
see `emitted`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from scipy.special import expit, softmax

from fairmend.errors import DataError, InputError, ModelError
from fairmend.evaluation import array_digest
from fairmend.masks import Dial, Mask, Site, Space
from fairmend.tabular.names import DROPS, DropName
from fairmend.tabular.networks.activations import IDENTITY, Activation, FloatArray

Drop = DropName | FloatArray
"""A meaning of "drop" by name, or the constant that each unit emits once dropped, shape (n_units,)."""

_Value = TypeVar("_Value", bound=np.generic)
NOT_FINITE = (
    "the network's logits are not finite on these rows: values of the features, or their products with the weights, "
    "are too large for float32. Remove or replace the extreme values (sentinels such as 1e38?), or scale the features "
    "as in training"
)
_BLOCK = 1 << 21  # float64 values per activation array of one block of rows: 16 MiB


@dataclass(frozen=True, eq=False)
class Layer:
    """activation(weight @ x + bias): one linear layer and the activation after it.

    Args:
        weight: (n_out, n_in), kept as a read-only float32 copy.
        bias: (n_out,), likewise.
        activation: what follows.
        name: the name of the site that holds the layer's neurons; "" for "hidden 1", "hidden 2", ...

    Raises:
        ModelError: shapes that do not fit together, or weights that are not finite in float32.
    """

    weight: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]
    activation: Activation = IDENTITY
    name: str = ""

    def __post_init__(self) -> None:
        label = f"layer {self.name!r}" if self.name else "a layer"
        weight, bias = np.asarray(self.weight), np.asarray(self.bias)
        if weight.ndim != 2 or 0 in weight.shape:
            raise ModelError(f"{label} needs a weight of shape (n_out, n_in), got {weight.shape}")
        if bias.shape != weight.shape[:1]:
            raise ModelError(f"{label} has {weight.shape[0]} neurons but a bias of shape {bias.shape}")
        for part, array in (("weight", weight), ("bias", bias)):
            with np.errstate(over="ignore"):
                single = np.array(array, dtype=np.float32, order="C")
            broken = int(single.size - np.isfinite(single).sum())
            if broken:
                raise ModelError(f"{label}: {broken} values of the {part} are NaN, infinite or too large for float32")
            single.flags.writeable = False
            object.__setattr__(self, part, single)

    @property
    def n_in(self) -> int:
        """Number of inputs."""
        return int(self.weight.shape[1])

    @property
    def n_out(self) -> int:
        """Number of neurons."""
        return int(self.weight.shape[0])


@dataclass(frozen=True, eq=False)
class Network:
    """A chain of layers that ends in logits.

    One output: class 1 when the logit is above 0. Several outputs: the class of the largest logit, the first at ties.

    Args:
        layers: in order; each takes what the one before gives, and the last has no activation.
        notes: what a person should be told about how the network was read, such as an assumed activation.
        classes: what its file calls the classes, in order; empty where nothing is known.

    Raises:
        ModelError: layers that do not chain, or a last layer with an activation.
    """

    layers: tuple[Layer, ...]
    notes: tuple[str, ...] = field(default=())
    classes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if not self.layers:
            raise ModelError("a network needs at least one layer")
        for index, (before, after) in enumerate(pairwise(self.layers)):
            if before.n_out != after.n_in:
                raise ModelError(
                    f"layers do not chain: {self._label(index)} gives {before.n_out} values, "
                    f"{self._label(index + 1)} takes {after.n_in}"
                )
        if self.layers[-1].activation != IDENTITY:
            raise ModelError(
                f"the last layer must give logits, but {self.layers[-1].activation} follows it: "
                "supported at the end are nothing, sigmoid on one output, and softmax"
            )

    def _label(self, index: int) -> str:
        return self.layers[index].name or f"layer {index + 1}"

    @property
    def n_features(self) -> int:
        """Number of input features."""
        return self.layers[0].n_in

    @property
    def n_outputs(self) -> int:
        """Number of logits."""
        return self.layers[-1].n_out

    @property
    def n_classes(self) -> int:
        """Number of classes: 2 for one logit, otherwise one per logit."""
        return 2 if self.n_outputs == 1 else self.n_outputs

    @property
    def hidden_widths(self) -> tuple[int, ...]:
        """Number of neurons of each hidden layer."""
        return tuple(layer.n_out for layer in self.layers[:-1])

    @property
    def n_units(self) -> int:
        """Number of hidden neurons, which are the droppable units."""
        return sum(self.hidden_widths)

    def space(
        self,
        min_drop: int = 0,
        max_drop: int | None = None,
        frozen: Iterable[int] = (),
        dials: Sequence[Dial] = (),
    ) -> Space:
        """The space of the hidden neurons: one site per hidden layer.

        Raises:
            ModelError: a network without hidden layers.
            InputError: limits that leave no mask.
        """
        if len(self.layers) == 1:
            raise ModelError("the network has no hidden layer, so there is no neuron to drop")
        names = [layer.name or f"hidden {index}" for index, layer in enumerate(self.layers[:-1], start=1)]
        sites = tuple(Site(name, width) for name, width in zip(names, self.hidden_widths, strict=True))
        return Space(sites, min_drop, max_drop, frozenset(int(unit) for unit in frozen), tuple(dials))

    def threshold_dials(self, low: float = -2.0, high: float = 2.0, step: float = 0.15) -> tuple[Dial, ...]:
        """Dials that shift the decision threshold: added to the one logit, or to all logits but the first.

        The logit of class 0 needs none, because adding the same to all logits changes nothing.
        """
        if self.n_outputs == 1:
            return (Dial("output bias", low, high, step),)
        return tuple(Dial(f"output bias {index}", low, high, step) for index in range(1, self.n_outputs))

    def shift(self, mask: Mask) -> FloatArray:
        """What the mask's dials add to the logits, shape (n_outputs,).

        Raises:
            InputError: a number of dials that `threshold_dials` does not make.
        """
        shift = np.zeros(self.n_outputs)
        if mask.dials:
            shiftable = shift if self.n_outputs == 1 else shift[1:]
            if len(mask.dials) != shiftable.size:
                raise InputError(
                    f"the mask has {len(mask.dials)} dials, a network of {self.n_outputs} outputs takes none or "
                    f"{shiftable.size}: make them with threshold_dials"
                )
            shiftable[:] = mask.dials
        return shift

    def by_layer(self, values: npt.NDArray[_Value]) -> list[npt.NDArray[_Value]]:
        """An array with one entry per unit, cut into one array per hidden layer."""
        return np.split(values, np.cumsum(self.hidden_widths)[:-1]) if self.n_units else []

    def dropped(self, mask: Mask) -> list[npt.NDArray[np.bool_]]:
        """The dropped neurons of each hidden layer as boolean arrays.

        Raises:
            InputError: a mask of another space.
        """
        if mask.n_units != self.n_units:
            raise InputError(f"the mask is of {mask.n_units} units, the network has {self.n_units} hidden neurons")
        return self.by_layer(mask.dropped())

    def logits(self, X: npt.ArrayLike, mask: Mask | None = None, drop: Drop = "output") -> FloatArray:
        """The logits of the masked network, shape (n_rows, n_outputs): the float64 reference of all fast paths.

        Args:
            X: (n_rows, n_features).
            mask: dropped neurons and dial settings; None for the network as it is.
            drop: what a dropped neuron emits, see `emitted`.

        Raises:
            DataError: X of another shape.
            InputError: a mask of another space, or drop="clamp" without constants.
        """
        rows = _table(self, X)
        dropped = constants = None
        if mask is not None and mask.bits:
            dropped = self.dropped(mask)
            constants = self.by_layer(emitted(self, drop))
        out = np.empty((len(rows), self.n_outputs))
        for block in self._blocks(len(rows)):
            values = np.asarray(rows[block], dtype=np.float64)
            for index, (layer, weight) in enumerate(zip(self.layers, self._transposed, strict=True)):
                values = layer.activation(values @ weight + layer.bias)
                if dropped is not None and constants is not None and index < len(dropped):
                    values[:, dropped[index]] = constants[index][dropped[index]]
            out[block] = values
        return out if mask is None else out + self.shift(mask)

    def predict(self, X: npt.ArrayLike, mask: Mask | None = None, drop: Drop = "output") -> npt.NDArray[np.int64]:
        """The predicted classes 0 .. n_classes - 1, shape (n_rows,). Arguments and errors as `logits`."""
        return decide(self.logits(X, mask, drop))

    def stays_finite(self, largest: FloatArray | npt.NDArray[np.float32]) -> bool:
        """Whether no sum in float32 can overflow, under any mask, for features of at most this size.

        Args:
            largest: (n_features,) absolute values.
        """
        limit = float(np.finfo(np.float32).max)
        values = np.asarray(largest, dtype=np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            for layer in self.layers:
                values = np.abs(layer.weight.astype(np.float64)) @ values + np.abs(layer.bias)
                if not (values < limit).all():
                    return False
                values = layer.activation.bound(values)
        return True

    def tensors(self) -> dict[str, npt.NDArray[np.float32]]:
        """Weights and biases by the names that files give them: layer1.weight, layer1.bias, layer2.weight, ..."""
        layers = enumerate(self.layers, start=1)
        return {f"layer{at}.{part}": getattr(layer, part) for at, layer in layers for part in ("weight", "bias")}

    def digest(self) -> str:
        """SHA-256 of weights, biases and activations; names and notes do not count."""
        activations = ",".join(str(layer.activation) for layer in self.layers)
        return array_digest(np.frombuffer(activations.encode(), dtype=np.uint8), *self.tensors().values())

    @cached_property
    def _transposed(self) -> list[FloatArray]:
        return [layer.weight.T.astype(np.float64) for layer in self.layers]

    def _blocks(self, n_rows: int) -> list[slice]:
        """Slices of rows small enough that the widest layer's output stays at 16 MiB."""
        size = max(1, _BLOCK // max(self.n_features, *(layer.n_out for layer in self.layers)))
        return [slice(start, start + size) for start in range(0, n_rows, size)]


def precision_notes(precisions: Iterable[str]) -> tuple[str, ...]:
    """What to tell about weights that are kept in other precisions than float32, by the names of these."""
    notes = []
    for name in sorted(set(precisions) - {"float32"}):
        turned = "are rounded" if name == "float64" else "are turned"
        notes.append(f"weights of the file are {name} and {turned} to float32, in which they are measured and saved")
    return tuple(notes)


def decide(logits: FloatArray) -> npt.NDArray[np.int64]:
    """The classes that logits of shape (n_rows, n_outputs) stand for, shape (n_rows,)."""
    if logits.shape[1] == 1:
        return (logits[:, 0] > 0).astype(np.int64)
    return np.asarray(logits.argmax(axis=1), dtype=np.int64)


def probabilities(logits: FloatArray) -> FloatArray:
    """Of class 1, shape (n_rows,), for one logit; of every class, shape (n_rows, n_outputs), for several."""
    out: FloatArray = expit(logits[:, 0]) if logits.shape[1] == 1 else softmax(logits, axis=1)
    return out


def emitted(network: Network, drop: Drop, X: npt.ArrayLike | None = None) -> FloatArray:
    """The constant that each hidden neuron emits once it is dropped, shape (n_units,).

    "output" (dropout): 0. "weights" (the published NeuFair artefact: the row of incoming weights is zeroed, the bias
    kept): activation(bias). "clamp" (DICE: Monjezi et al., ICSE 2023): the neuron's largest output over the rows
    of X in the network as it is. An array of constants is checked and returned.

    Raises:
        InputError: an unknown name, "clamp" without X, or constants that are not one finite number per unit.
    """
    if isinstance(drop, np.ndarray):
        constants = np.asarray(drop, dtype=np.float64)
        if constants.shape != (network.n_units,) or not np.isfinite(constants).all():
            raise InputError(
                f"drop constants must be one finite number per hidden neuron, shape ({network.n_units},); "
                f"got shape {constants.shape}"
            )
        return constants
    hidden = network.layers[:-1]
    if drop == "output" or not hidden:
        return np.zeros(network.n_units)
    if drop == "weights":
        return np.concatenate([layer.activation(layer.bias) for layer in hidden])
    if drop == "clamp":
        if X is None:
            raise InputError('drop="clamp" needs data: pass emitted(network, "clamp", X) as drop')
        return _largest_outputs(network, X)
    raise InputError(f"drop must be one of {', '.join(DROPS)} or an array of constants, got {drop!r}")


def _largest_outputs(network: Network, X: npt.ArrayLike) -> FloatArray:
    rows = _table(network, X)
    if not len(rows):
        raise DataError('drop="clamp" needs at least one row of X')
    largest = np.full(network.n_units, -np.inf)
    for block in network._blocks(len(rows)):
        values = np.asarray(rows[block], dtype=np.float64)
        outputs = []
        for layer, weight in zip(network.layers[:-1], network._transposed, strict=False):
            values = layer.activation(values @ weight + layer.bias)
            outputs.append(values.max(axis=0))
        np.maximum(largest, np.concatenate(outputs), out=largest)
    return emitted(network, largest)


def _table(network: Network, X: npt.ArrayLike) -> npt.NDArray[np.generic]:
    rows = np.asarray(X)
    if rows.ndim != 2 or rows.shape[1] != network.n_features:
        raise DataError(f"the network takes rows of {network.n_features} features, got an array of shape {rows.shape}")
    if rows.dtype.kind not in "fiub":
        raise DataError(f"the network takes numbers, got an array of dtype {rows.dtype}")
    return rows
