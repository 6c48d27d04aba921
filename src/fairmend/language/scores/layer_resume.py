"""Run a model from one of its decoder layers on: what the layers before it give is kept from one full run.

A mask that switches off heads of layer l and later ones changes nothing before layer l. The model's own forward is
called all the same, with the earlier layers replaced by their kept outputs, so that embeddings, attention masks,
positions, the last norm and the output layer are the architecture's own business. The list of layers follows from the
names of the head map. Whether the architecture allows it (a layer may hand things on by other ways than its output) is
not looked up but tried: for every layer, a masked run that resumes there must give the logits of a masked full run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from fairmend.language.backend.batching import BatchSize, is_out_of_memory
from fairmend.language.backend.forward import last_logits, plain
from fairmend.language.heads.gates import HeadGates
from fairmend.language.heads.heads import HeadMap, enclosing_layer, probe_ids
from fairmend.language.models.models import LanguageModel

T = TypeVar("T")


class AllAtOnce(BatchSize):
    """Passes all items to the function in one go: the caller has cut the batch, and handles "out of memory"."""

    def __init__(self) -> None:
        self.rows = 1

    def run(self, function: Callable[[Sequence[int]], T], items: Sequence[int]) -> Iterator[tuple[Sequence[int], T]]:
        """Call `function` once."""
        yield items, function(items)


class LayerResume:
    """Keeps the outputs of a model's decoder layers and resumes from any of them. Built by `layer_resume`.

    Attributes:
        layers: the decoder layers, in order.
        head_layers: index of the layer that each head belongs to, `(n_heads,)`.
    """

    def __init__(self, layers: Sequence[nn.Module], head_layers: Tensor) -> None:
        self.layers = tuple(layers)
        self.head_layers = head_layers
        self._kept: list[Any] = []
        self._calls = [0] * len(self.layers)

    def first_layers(self, gates: Tensor) -> Tensor:
        """The first layer that each row of gates `(rows, n_heads)` changes, `(rows,)`; the last one if it changes none.

        Runs with these gates may resume from there.
        """
        last = len(self.layers) - 1
        return torch.where(gates != 1, self.head_layers, last).amin(dim=-1)

    def capture(self, run: Callable[[], T]) -> T:
        """Call `run`, which runs the unmasked model once, and keep what every layer gives."""
        self._kept, self._calls = [None] * len(self.layers), [0] * len(self.layers)
        hooks = [layer.register_forward_hook(self._keep(number)) for number, layer in enumerate(self.layers[:-1])]
        try:
            return run()
        finally:
            for hook in hooks:
                hook.remove()

    @contextmanager
    def resumed(self, first: int, times: int) -> Iterator[None]:
        """Within the block, the model begins with layer `first`; what goes before is taken from the captured run.

        The batch must be that of the captured run with every sequence repeated `times` times in a row.
        """
        replaced = self.layers[:first]
        former = [layer.__dict__.get("forward") for layer in replaced]
        try:
            for number, layer in enumerate(replaced):
                layer.forward = self._give(number, times)
            yield
        finally:
            for layer, forward in zip(replaced, former, strict=True):
                if forward is not None:  # such as that of accelerate
                    layer.forward = forward
                else:
                    layer.__dict__.pop("forward", None)

    def forget(self) -> None:
        """Let go of what was captured."""
        self._kept = []

    @property
    def is_straight(self) -> bool:
        """Whether the captured run went through every layer just once."""
        return all(count == 1 for count in self._calls[:-1])

    def _keep(self, number: int) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            self._calls[number] += 1
            # A copy: a later layer may add to its input in place.
            self._kept[number] = _each_tensor(output, torch.clone)

        return hook

    def _give(self, number: int, times: int) -> Callable[..., Any]:
        def forward(*_args: Any, **_kwargs: Any) -> Any:
            return _each_tensor(self._kept[number], lambda tensor: tensor.repeat_interleave(times, dim=0))

        return forward


def layer_resume(lm: LanguageModel) -> tuple[LayerResume | None, str]:
    """The means to resume a model from its layers, proven for every layer; or None, and why it is not possible.

    Costs a short forward pass per layer. The model is as before.
    """
    model = plain(lm.model)
    found = _layers(model, lm.head_map)
    if found is None:
        return None, "the heads are not in one list of decoder layers"
    resume = LayerResume(*found)
    with torch.inference_mode(), HeadGates(model, lm.head_map) as hooks:
        reason = _objection(model, resume, hooks)
    resume.forget()
    return (None, reason) if reason else (resume, "")


def _objection(model: nn.Module, resume: LayerResume, hooks: HeadGates) -> str:
    """Why the model cannot be resumed; empty when every layer was tried and none spoke against it."""
    ids = probe_ids(model, 2)
    ids[1] = ids[1].roll(1)
    n_heads = len(resume.head_layers)

    def logits(rows: Tensor, gates: Tensor) -> Tensor:
        hooks.set(gates)
        return last_logits(model, rows, rows.shape[1])

    untouched = resume.capture(lambda: logits(ids, torch.ones(n_heads)))
    if not resume.is_straight:
        return "the decoder layers do not run once each"
    tried = sorted(set(resume.head_layers.tolist()), reverse=True)
    masks = torch.ones(len(tried), n_heads)
    for number, layer in enumerate(tried):
        masks[number, (resume.head_layers == layer).nonzero()[-1]] = 0
    whole = logits(ids[:1].repeat(len(tried), 1), masks if len(tried) > 1 else masks[0])
    # Whatever layers remember outside of their outputs is now of another text, and stays so for the layers before the
    # one that is tried, because the last layer comes first.
    twice = ids.repeat_interleave(2, dim=0)
    logits(twice.roll(2, dims=1), torch.ones(n_heads))
    for number, layer in enumerate(tried):
        gates = torch.ones(len(twice), n_heads)
        gates[0] = masks[number]
        expected = torch.cat([whole[number : number + 1], untouched.repeat_interleave(2, dim=0)[1:]])
        try:
            with resume.resumed(layer, 2):
                agrees = _agree(logits(twice, gates), expected)
        except (RuntimeError, LookupError, TypeError, AttributeError, ValueError) as error:
            if is_out_of_memory(error):
                raise
            agrees = False
        if not agrees:
            return f"decoder layer {layer} depends on more than the output of the layer before it"
    return ""


def _layers(model: nn.Module, head_map: HeadMap) -> tuple[Sequence[nn.Module], Tensor] | None:
    """The one list of layers that all heads are in, and the layer of each head."""
    places = [enclosing_layer(model, site.name) for site in head_map.sites]
    lists = {place[0] for place in places if place is not None}
    if None in places or len(lists) != 1:
        return None
    layers: Any = model.get_submodule(lists.pop())
    indices = [place[1] for place in places if place is not None]
    counts = torch.tensor([site.n_heads for site in head_map.sites])
    return list(layers), torch.tensor(indices).repeat_interleave(counts)


def _agree(first: Tensor, second: Tensor) -> bool:
    if first.shape != second.shape:
        return False
    tolerance = 1e-5 if first.dtype in (torch.float32, torch.float64) else 3e-2
    scale = float(second.abs().nan_to_num().max())
    return torch.allclose(first, second, rtol=0, atol=tolerance * max(scale, 1e-30), equal_nan=True)


def _each_tensor(output: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The output of a layer, a tensor or a tuple or list of them, with every batched tensor changed."""
    if isinstance(output, Tensor):
        return change(output) if output.dim() else output
    if type(output) in (tuple, list):
        return type(output)(_each_tensor(part, change) for part in output)
    return output
