"""Models as another release of transformers, or own code, might have them: arguments renamed, gone or not read."""

import inspect
from collections.abc import Callable
from typing import Any

from architectures import tiny
from transformers import LlamaForCausalLM

CACHE = "cache" if "cache" in inspect.signature(LlamaForCausalLM.forward).parameters else "past_key_values"
"""What the installed release calls it, as an argument and as a part of the outputs."""

_USUAL = ("input_ids", "attention_mask", "position_ids", CACHE, "use_cache", "logits_to_keep")


def drift(
    model: Any,
    called: dict[str, str | None] | None = None,
    before: Callable[[dict[str, Any]], Any] = lambda arguments: None,
    after: Callable[[Any], Any] = lambda outputs: None,
) -> Any:
    """The model with another class, whose forward forgets what it does not know, as **kwargs let it.

    Args:
        model: a tiny model; it is changed.
        called: new names of arguments; None takes one away.
        before: changes the arguments on their way to the model's own forward.
        after: changes its outputs.
    """
    names = {usual: (called or {}).get(usual, usual) for usual in _USUAL}
    usual_names = {name: usual for usual, name in names.items() if name is not None}
    own = type(model).forward

    def forward(self: Any, **given: Any) -> Any:
        arguments = {usual_names[name]: value for name, value in given.items() if name in usual_names}
        before(arguments)
        outputs = own(self, **arguments)
        after(outputs)
        return outputs

    itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    taken = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in usual_names]
    others = inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD)
    forward.__signature__ = inspect.Signature([itself, *taken, others])  # type: ignore[attr-defined]
    model.__class__ = type("DriftedForCausalLM", (type(model),), {"forward": forward})
    return model


def forget(name: str, architecture: str = "llama-gqa") -> Any:
    """A model that takes an argument and does without it."""
    return drift(tiny(architecture), before=lambda arguments: arguments.pop(name, None))


def raising(error: Exception) -> Any:
    """A model whose own code raises."""

    def fail(_: object) -> None:
        raise error

    return drift(tiny("llama-gqa"), before=fail)


def without_cache(outputs: Any) -> None:
    """Takes the cache out of the outputs, behind the back of the dictionary that they are."""
    object.__setattr__(outputs, CACHE, None)


def with_rows_in_their_old_order(outputs: Any) -> None:
    """Lets the cache drop rows from its end, whichever were to go."""
    cache = getattr(outputs, CACHE)

    def cut(order: Any) -> None:
        for layer in cache.layers:
            layer.keys, layer.values = layer.keys[: len(order)], layer.values[: len(order)]

    if cache is not None:
        cache.reorder_cache = cut
