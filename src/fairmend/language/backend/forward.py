"""Forward passes of any architecture: the logits of the last positions, at once or token by token with a cache.

Arguments are handed by name. One that the figures rest on (the cache, the mask, positions) and that an architecture's
forward does not take is an error; one that only saves time or memory is left out where it is unknown. That what was
taken was also understood is shown for every model by `proof`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fairmend.errors import FairmendError, ModelError, first_line
from fairmend.language.backend.batching import is_out_of_memory
from fairmend.language.backend.versions import lacking, required, transformers_version

_CACHE_NAMES = ("cache", "past_key_values", "cache_params")
"""Of the argument and of the output: from transformers 5.24 on; before it; and before it where there are states only
(Mamba). Code that comes with a checkpoint may keep an older name for long, so that the signature decides, not the
release."""

_WITHOUT_POSITIONS = frozenset({"bloom", "mpt", "mamba", "mamba2", "falcon_mamba"})
"""Architectures (`model_type`) whose forward takes no position ids and needs none: attention that knows distances
between tokens only (ALiBi), or none at all. Padding on the left, once masked, moves nothing."""

_MASKED_ONCE = frozenset({"mamba", "falcon_mamba"})
"""Architectures that apply a mask to just the tokens handed in, whatever they remember: it is for the prompts only."""


def plain(model: nn.Module) -> nn.Module:
    """The module itself, when `model` is the wrapper that torch.compile returns.

    Were that wrapper's attribute renamed, the wrapper would be refused as no model of transformers.
    """
    inside = getattr(model, "_orig_mod", model)
    return inside if isinstance(inside, nn.Module) else model


def text_config(model: nn.Module) -> Any:
    """The configuration of a model's language part; of the whole, where there is nothing else."""
    return required(plain(model), "config").get_text_config(decoder=True)


def vocabulary_of(model: nn.Module) -> int:
    """Number of tokens that a model gives a probability to."""
    return int(required(text_config(model), "vocab_size"))


def is_exact(model: nn.Module) -> bool:
    """Whether a model computes in float32 or more, where only rounding far below 1e-4 is to be expected."""
    exact = (torch.float32, torch.float64)
    return all(weight.dtype in exact for weight in plain(model).parameters() if weight.is_floating_point())


def require_decoder(model: nn.Module, name: str) -> None:
    """Refuse an encoder-decoder model with a ModelError."""
    if required(required(plain(model), "config"), "is_encoder_decoder"):
        raise ModelError(
            f"{name} is an encoder-decoder model: only causal (decoder-only) language models are supported"
        )


def embedding(model: nn.Module) -> Tensor:
    """The embedding of tokens, (n_tokens, width).

    Raises:
        ModelError: the architecture does not say where it is.
    """
    accessor: Any = required(plain(model), "get_input_embeddings")
    try:
        weight = accessor().weight
    except (NotImplementedError, AttributeError) as error:
        raise lacking(plain(model), f"get_input_embeddings gives no embedding of tokens ({error})") from error
    if not isinstance(weight, Tensor) or weight.dim() != 2:
        raise lacking(plain(model), "get_input_embeddings gives no embedding of tokens with a row for each")
    return weight


def last_logits(model: nn.Module, inputs: Tensor, n_positions: int) -> Tensor:
    """Run a model on token ids, without a cache; every row is read whole, from its first token on.

    Args:
        model: a causal language model.
        inputs: token ids `(rows, width)`.
        n_positions: of how many positions, from the end, the logits are wanted.

    Returns:
        logits `(rows, n_positions, vocabulary)`.

    Raises:
        ModelError: the model does not run on them.
    """
    return _logits(model, inputs, n_positions, use_cache(model, False))[0]


class CachedRows:
    """Rows of tokens that a model reads on token by token, and what it remembers of them.

    Rows are padded on the left to one width. Padding is masked, and positions count from each row's own first token.

    Args:
        model: a causal language model.
        rows: token ids, none empty.
        width: that the rows are padded to.
        filler: the token that they are padded with; any that the model knows.

    Raises:
        ModelError: the model's forward does not take a cache, a mask or positions.
    """

    def __init__(self, model: nn.Module, rows: Sequence[Sequence[int]], width: int, filler: int) -> None:
        device = required(model, "device")
        self._model = model
        self._cache: Any = None
        self._cache_name = _asked_for(model, *_CACHE_NAMES, why="what was read is forgotten")
        kind = required(required(plain(model), "config"), "model_type")
        self._takes_positions = kind not in _WITHOUT_POSITIONS or "position_ids" in _signature(model)[0]
        if self._takes_positions:
            _asked_for(model, "position_ids", why="prompts of different lengths cannot share a batch")
        _asked_for(model, "attention_mask", why="padding cannot be told from text")
        self._is_masked_once = kind in _MASKED_ONCE
        self._inputs = torch.tensor([[filler] * (width - len(row)) + list(row) for row in rows], device=device)
        lengths = torch.tensor([len(row) for row in rows], device=device)
        self._seen = (torch.arange(width, device=device) >= width - lengths[:, None]).long()
        self._positions = (self._seen.cumsum(1) - 1).clamp(min=0)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self._inputs)

    def next_logits(self) -> Tensor:
        """Read what was not read yet; the logits that follow, `(rows, vocabulary)`.

        Raises:
            ModelError: no cache comes back.
        """
        arguments = {self._cache_name: self._cache, **use_cache(self._model, True)}
        if self._cache is None or not self._is_masked_once:
            arguments["attention_mask"] = self._seen
        if self._takes_positions:
            arguments["position_ids"] = self._positions
        logits, outputs = _logits(self._model, self._inputs, 1, arguments)
        found = (getattr(outputs, name, None) for name in _CACHE_NAMES)  # one of them is there, by the release
        self._cache = next((cache for cache in found if cache is not None), None)
        if self._cache is None:
            raise lacking(
                plain(self._model), "its forward returns no cache of past tokens, and texts cannot be continued"
            )
        return logits[:, -1]

    def append(self, tokens: Tensor) -> None:
        """Give every row its next token, `(rows,)`."""
        self._inputs = tokens.to(self._inputs.device)[:, None]
        self._seen = torch.cat([self._seen, torch.ones_like(self._inputs)], dim=1)
        self._positions = self._positions[:, -1:] + 1

    def select(self, kept: Tensor) -> None:
        """Go on with some of the rows, by their numbers, in that order."""
        at = kept.to(self._inputs.device)
        # Not `batch_select_indices`: layers of hybrid models lack it, or leave their recurrent states as they were.
        # What beams are reordered with is there for all, and takes fewer rows too.
        required(self._cache, "reorder_cache")(at)
        self._inputs, self._seen, self._positions = self._inputs[at], self._seen[at], self._positions[at]


def run(model: nn.Module, arguments: Mapping[str, Any]) -> Any:
    """Call a model; its outputs as they come, with logits among them.

    Raises:
        ModelError: what the architecture's own code raised, in its words, or outputs without logits.
    """
    kind, release = type(plain(model)).__name__, transformers_version()
    try:
        outputs = model(**arguments)
    except (FairmendError, MemoryError):
        raise
    except Exception as error:  # any architecture's code, a stranger's too, and it raises anything
        if is_out_of_memory(error):
            raise
        raise ModelError(
            f"{kind} of transformers {release} does not run on {', '.join(arguments)} "
            f"({type(error).__name__}: {first_line(error)}). It needs other inputs, or its configuration, its weights "
            "and this release do not go together"
        ) from error
    if not isinstance(getattr(outputs, "logits", None), Tensor):
        raise ModelError(f"{kind} of transformers {release} returns no logits: it is not a causal language model")
    return outputs


def why_not_finite(model: nn.Module) -> str:
    """What a model whose logits are NaN or infinite without any mask suffers from, and what to do about it."""
    for name, weight in plain(model).named_parameters():
        if weight.dtype.itemsize > 1 and weight.is_floating_point() and not weight.is_meta:
            n_broken = int((~torch.isfinite(weight)).sum())
            if n_broken:
                return (
                    f"{n_broken:,} of the {weight.numel():,} weights of {name} are NaN or infinite, so that the "
                    "checkpoint is damaged: fetch it again, or save it again where it was made"
                )
    dtypes = {str(weight.dtype).removeprefix("torch.") for weight in plain(model).parameters()}
    if dtypes & {"float16", "bfloat16"}:
        return f"all its weights are finite, so that it overflows {' and '.join(sorted(dtypes))}: try float32"
    return "all its weights are finite, so that it overflows even float32: check how the checkpoint was made"


def use_cache(model: nn.Module, wanted: bool) -> dict[str, bool]:
    """The argument that asks for a cache, or for none, where the architecture knows it.

    Some take it without a name, as one of **kwargs. Where it is not known nothing is lost: no cache is a saving, and if
    one is wanted and none comes back, `CachedRows` says so.
    """
    known, is_open = _signature(model)
    return {"use_cache": wanted} if is_open or "use_cache" in known else {}


def _logits(model: nn.Module, inputs: Tensor, n_positions: int, arguments: dict[str, Any]) -> tuple[Tensor, Any]:
    """Logits of the last positions and the outputs; the arguments were asked for by name before."""
    width = inputs.shape[1]
    arguments = {"input_ids": inputs, **arguments}
    if n_positions < width and "logits_to_keep" in _signature(model)[0]:
        # A saving: where it is not known, the logits of all positions are computed, and cut below.
        # Positions by number, not by count: with a count, models slice their hidden states, and the product of a
        # slice with the vocabulary copies that matrix for every row (10 times slower in bfloat16, gigabytes of memory).
        arguments["logits_to_keep"] = torch.arange(width - n_positions, width, device=inputs.device)
    outputs = run(model, arguments)
    logits: Tensor = outputs.logits
    if logits.dim() != 3 or logits.shape[0] != len(inputs) or logits.shape[1] not in (n_positions, width):
        raise lacking(
            plain(model),
            f"logits of shape {tuple(logits.shape)} came back for {tuple(inputs.shape)} tokens, the last {n_positions}",
        )
    return logits[:, -n_positions:], outputs


def _signature(model: nn.Module) -> tuple[set[str], bool]:
    """Names of forward's arguments, and whether it takes others too."""
    inside = plain(model)
    parameters = inspect.signature(inside.forward).parameters
    if "input_ids" not in parameters:  # somebody's wrapper of this one forward: what it hands on, the class says
        parameters = inspect.signature(type(inside).forward).parameters
    is_open = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    return set(parameters), is_open


def _asked_for(model: nn.Module, *names: str, why: str) -> str:
    """The first of some names of one argument that forward takes.

    One that is taken as one of **kwargs does not count: nearly every forward has them, and forgets what it does not
    know.

    Raises:
        ModelError: it takes none of them.
    """
    known, _ = _signature(model)
    found = [name for name in names if name in known]
    if not found:
        raise lacking(plain(model), f"its forward takes no argument {' or '.join(names)}, without which {why}")
    return found[0]
