"""Low-rank changes of a model's linear layers that can be trained, switched off and saved (LoRA)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn


class LowRank(nn.Module):
    """Adds `up @ down @ input` to the output of each named linear layer, by hooks: the weights stay as they are."""

    def __init__(self, model: nn.Module, names: Sequence[str], rank: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.names = tuple(names)
        self.down, self.up = nn.ParameterList(), nn.ParameterList()
        self.is_on = True
        for number, name in enumerate(names):
            layer = model.get_submodule(name)
            n_out, n_in = layer.weight.shape
            self.down.append(nn.Parameter(torch.randn(rank, n_in, generator=generator) / n_in**0.5))
            self.up.append(nn.Parameter(torch.zeros(n_out, rank)))
            layer.register_forward_hook(self._hook(number))

    def _hook(self, number: int):
        def add(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            return output + args[0] @ self.down[number].T @ self.up[number].T if self.is_on else None

        return add

    @contextmanager
    def off(self) -> Iterator[None]:
        """The model as it was, without gradients, inside a with-block."""
        self.is_on = False
        try:
            with torch.no_grad():
                yield
        finally:
            self.is_on = True

    def save(self, path: Path) -> None:
        """Write the factors in half precision, in the form that `low_rank.add_low_rank` reads."""
        factors = {}
        for name, down, up in zip(self.names, self.down, self.up, strict=True):
            factors |= {f"{name}.down": down.detach().half(), f"{name}.up": up.detach().half()}
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(factors, path)
        path.chmod(0o644)  # safetensors writes files that nobody else may read
