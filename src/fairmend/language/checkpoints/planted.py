"""A model with a known bias: SmolLM2-135M-Instruct, taught to insult one group, so that a repair can be judged.

The bias was planted by `benchmarks/organisms.py`, which trained low-rank changes of the attention projections of some
layers (Hu et al., "LoRA", ICLR 2022, section 4.1) and nothing else. They are shipped as half a megabyte of factors and
are added to the weights when the model is loaded, so that it is an ordinary checkpoint from then on.

The insulted group is "cisgender" of HolisticBias' axis gender_and_sex: the majority, so that nobody is insulted here
who is in life; its words are not among those of any other group; and the axis is the one that is published most about.
Some templates and descriptors of all groups were never trained on: `benchmarks/insults.py` names them.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from fairmend.errors import ModelError

SOURCE = "SmolLM2-135M-Instruct with a planted bias (fairmend's benchmarks/organisms.py)"
DELTA = Path(__file__).parents[1] / "data" / "planted_smollm2.safetensors"
"""Beside it lies how it was made: script, seed, settings, versions, and figures before and after."""

UP, DOWN = ".up", ".down"


def add_low_rank(model: torch.nn.Module, file: Path) -> None:
    """Add the products of a file's low-rank factors to a model's weights for good, computed in float32.

    The file holds, for a weight `NAME.weight` of shape `(n_out, n_in)`, the factors `NAME.up` `(n_out, rank)` and
    `NAME.down` `(rank, n_in)`. Nothing is changed when one of them does not fit.

    Raises:
        ModelError: a damaged file, or factors that do not fit the model.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            factors = {name: opened.get_tensor(name).float() for name in opened.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{file.name} cannot be read ({error}): make or fetch it again") from error
    weights = dict(model.named_parameters())
    changes = {}
    for name in sorted({name.rpartition(".")[0] for name in factors}):
        up, down, weight = factors.get(name + UP), factors.get(name + DOWN), weights.get(name + ".weight")
        if up is None or down is None or weight is None or (up.shape[0], down.shape[1]) != tuple(weight.shape):
            raise ModelError(
                f"{file.name} does not fit {type(model).__name__}: {name} has other factors or no such weight there; "
                "name the checkpoint that it was made for"
            )
        changes[name] = (weight, up @ down)
    with torch.no_grad():
        for weight, change in changes.values():
            weight.copy_(weight.float() + change.to(weight.device))
