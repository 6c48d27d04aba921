"""One forward pass of any architecture, with the logits of the last positions only."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn


def last_logits(model: nn.Module, inputs: Tensor, n_positions: int, **options: Any) -> tuple[Tensor, Any]:
    """Run a model on token ids.

    Args:
        model: a causal language model.
        inputs: token ids `(rows, width)`.
        n_positions: of how many positions, from the end, the logits are wanted.
        options: further arguments of its forward; those that the architecture does not know are left out.

    Returns:
        logits `(rows, n_positions, vocabulary)`, and the outputs as they came.
    """
    width = inputs.shape[1]
    if n_positions < width:
        # Positions by number, not by count: with a count, models slice their hidden states, and the product of a
        # slice with the vocabulary copies that matrix for every row (10 times slower in bfloat16, gigabytes of memory).
        options["logits_to_keep"] = torch.arange(width - n_positions, width, device=inputs.device)
    known = inspect.signature(model.forward).parameters
    outputs = model(input_ids=inputs, **{name: value for name, value in options.items() if name in known})
    return outputs.logits[:, -n_positions:], outputs
