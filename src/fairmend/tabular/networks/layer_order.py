"""The order of the layers of a file that keeps them by name only: told by numbers in the names, or by the shapes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

from fairmend.errors import ModelError

Shape = tuple[int, int]
_Pieces = tuple[str | tuple[int, str], ...]

_MOST = 200  # layers that are tried in other orders than that of their names
_STEPS = 20_000  # of trying, after which an order counts as untold


def order_layers(shapes: Mapping[str, Shape]) -> tuple[list[str], tuple[str, ...]]:
    """The names of the layers in the order of use, and notes.

    Names that first differ in a number ("fc2" and "fc10", "block0.out" and "block1.in") are in the order of these
    numbers. Of names that do not differ so ("input", "hidden", "output"), and of numbered layers that do not chain,
    the only order is taken in which each layer takes what the one before gives. Names of which no order chains come
    back sorted.

    Args:
        shapes: (n_out, n_in) of each layer.

    Raises:
        ModelError: the names tell no order, and the shapes allow several.
    """
    names = sorted(shapes, key=lambda name: (_pieces(name), name))
    certain = all(_precedes(*pair) for pair in pairwise(names))
    if certain and _chains(names, shapes):
        return names, ()
    found = _orders(names, shapes, _precedes)
    if len(found) > 1:
        shown = " or ".join(_shown(order) for order in found)
        raise ModelError(
            f"the names of the layers do not tell their order, and their shapes allow several, such as {shown}: "
            "rename the tensors in the order in which the network uses them, layer1.weight, layer1.bias, "
            "layer2.weight, ...; or read the network from ONNX, or from Python with read_torch"
        )
    if not found:  # by their numbers they do not chain
        found = _orders(names, shapes, lambda _, __: False)
        if len(found) != 1:
            return names, ()
        return found[0], (f"the layers chain only in another order than their numbers: {_shown(found[0])}",)
    return found[0], (f"the layers are taken in the only order in which they chain: {_shown(found[0])}",)


def _shown(order: Sequence[str]) -> str:
    return ", ".join(order[:8]) + (", ..." if len(order) > 8 else "")


def _pieces(name: str) -> _Pieces:
    """A name cut into texts and numbers; a number as its length and digits, so that it may be of any length."""
    parts = re.split(r"([0-9]+)", name)
    digits = [part.lstrip("0") for part in parts[1::2]]
    pieces: list[str | tuple[int, str]] = list(parts)
    pieces[1::2] = [(len(number), number) for number in digits]
    return tuple(pieces)


def _precedes(name: str, other: str) -> bool:
    """Whether the first thing in which the names differ is a number, the smaller one in `name`."""
    for mine, its in zip(_pieces(name), _pieces(other), strict=False):
        if mine != its:
            return isinstance(mine, tuple) and isinstance(its, tuple) and mine < its
    return False


def _chains(names: Sequence[str], shapes: Mapping[str, Shape]) -> bool:
    return all(shapes[before][0] == shapes[after][1] for before, after in pairwise(names))


def _orders(names: Sequence[str], shapes: Mapping[str, Shape], precedes: Callable[[str, str], bool]) -> list[list[str]]:
    """At most two orders in which the layers chain and none comes after one that it precedes."""
    if len(names) > _MOST:
        raise ModelError(
            f"the order of {len(names)} layers is not told by their names, {names[0]}, {names[1]}, ...: rename the "
            "tensors layer1.weight, layer1.bias, layer2.weight, ... in the order in which the network uses them"
        )
    earlier = {name: {other for other in names if precedes(other, name)} for name in names}
    found: list[list[str]] = []
    waiting: list[list[str]] = [[]]
    for _ in range(_STEPS):
        if not waiting or len(found) == 2:
            return found
        path = waiting.pop()
        if len(path) == len(names):
            found.append(path)
            continue
        taken = set(path)
        waiting += [
            [*path, name]
            for name in reversed(names)
            if name not in taken and earlier[name] <= taken and (not path or shapes[path[-1]][0] == shapes[name][1])
        ]
    raise ModelError(
        f"the order of the layers {_shown(names)} is told neither by their names nor by their shapes: "
        "rename the tensors layer1.weight, layer1.bias, layer2.weight, ... in the order in which the network uses them"
    )
