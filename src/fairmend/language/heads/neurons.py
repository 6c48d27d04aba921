"""The hidden neurons of the feed-forward blocks, as further units that can be turned beside the attention heads.

A hidden neuron is an input feature of a block's last projection, as a head is a slice of the input of an attention's:
the same gate multiplies it, and the same columns of weights absorb its gain.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from torch import nn

from fairmend.errors import ModelError
from fairmend.language.backend.forward import plain
from fairmend.language.heads.attention_probe import input_width, is_linear, output_width
from fairmend.language.heads.heads import HeadMap, HeadSite, enclosing_layer, probe_ids, probing, run_probe

_ROWS = 2


def with_neurons(model: nn.Module, head_map: HeadMap) -> HeadMap:
    """The map of the heads with the neurons of every layer's feed-forward block as further sites, after all heads.

    Looked for is the last linear map of a decoder layer that leads back to the width of the attention's output and
    reads every token of every row exactly once: experts that read some tokens are none.

    Raises:
        ModelError: no layer has such a projection.
    """
    inside = plain(model)
    found = dict(_last_projections(inside, head_map))
    calls: Counter[str] = Counter()
    ids = probe_ids(inside, _ROWS)

    def count(name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        calls[name] += 1 if args[0].numel() == ids.numel() * found[name].width else 2

    hooks = [inside.get_submodule(name).register_forward_pre_hook(partial(count, name)) for name in found]
    try:
        with probing(inside):
            run_probe(inside, ids)
    finally:
        for hook in hooks:
            hook.remove()
    sites = tuple(site for name, site in found.items() if calls[name] == 1)
    if not sites:
        raise ModelError(
            f"{head_map.architecture} has no feed-forward blocks whose neurons every token runs through (a mixture of "
            "experts?): turn its heads alone (--soft-units heads)"
        )
    return replace(head_map, sites=(*head_map.sites, *sites))


def _last_projections(model: nn.Module, head_map: HeadMap) -> Iterator[tuple[str, HeadSite]]:
    attention = {site.name for site in head_map.sites}
    for site in head_map.sites:
        place = enclosing_layer(model, site.name)
        if place is None:
            continue
        layer = f"{place[0]}.{place[1]}" if place[0] else str(place[1])
        width = output_width(model.get_submodule(site.name))
        linear = [
            f"{layer}.{name}"
            for name, module in model.get_submodule(layer).named_modules()
            if is_linear(module) and output_width(module) == width
        ]
        if linear and linear[-1] not in attention:
            module = model.get_submodule(linear[-1])
            units = input_width(module)
            yield linear[-1], HeadSite(linear[-1], site.layer, units, 1, units, type(module).__name__)
