"""The command `fairmend lm chat`: a model and its repaired copy, side by side, one prompt after the other."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated

import typer

from fairmend.cli.display import Interrupted, Screen, opened
from fairmend.cli.language.inputs import open_model
from fairmend.cli.language.options import Model, ModelOptions, Repaired
from fairmend.cli.options import CommonOptions, Given, of
from fairmend.errors import FairmendError, InputError
from fairmend.language.protocols import Sampling

if TYPE_CHECKING:
    from fairmend.language.measurement.replies import Reply

_APART = "|||"


def chat(
    model: Model,
    repaired: Repaired,
    *,
    options: ModelOptions,
    given: Annotated[Given, of(Sampling, "new_tokens", panel="Continuations")],
    greedy: Annotated[
        bool, typer.Option("--greedy", help="Take the most probable token each time instead of drawing.")
    ] = False,
    alternatives: Annotated[
        str,
        typer.Option(
            "--alternatives",
            metavar="A|B",
            help="The two continuations that are compared after every prompt that does not name its own.",
        ),
    ] = "he | she",
    common: CommonOptions,
) -> None:
    """Type a prompt, see how a model and its repaired copy go on, and which of two words each of them prefers.

    Prompts are lines of standard input. A line may name its own alternatives: `The nurse said that ||| he | she`. The
    preference is the log-likelihood of the first alternative minus that of the second, in nats. Both models draw with
    the same noise, and the same prompt with the same --seed is continued alike. Continuations are printed as they are
    and may offend. Ctrl-D ends it.

    With --json, every line of input gives one line with a JSON object: prompt, alternatives, and of "before" and
    "after" the continuation and the preference; or prompt and error.

    Example: `fairmend lm chat smollm2 repaired`

    Example: `echo "The nurse said that ||| he | she" | fairmend lm chat smollm2 repaired --json`
    """
    with opened(common) as screen:
        usual = _pair(alternatives, f"--alternatives {alternatives!r}")
        sampling = given.onto(Sampling(seed=common.seed))
        if greedy:
            sampling = replace(sampling, top_k=1)
        before = open_model(model, options, screen)
        after = open_model(repaired, replace(options, revision=None), screen)
        from fairmend.language.measurement.replies import reply
        from fairmend.language.models.models import require_same_vocabulary

        require_same_vocabulary(before, after)
        names = (model, repaired)
        try:
            for line in _lines(screen):
                prompt, bar, own = (part.strip() for part in line.partition(_APART))
                try:
                    pair = _pair(own, f"{own!r}") if bar else usual
                    replies = [reply(lm, prompt, pair, sampling) for lm in (before, after)]
                except FairmendError as error:
                    _refuse(prompt, error, screen)
                else:
                    _show(prompt, pair, names, replies, screen)
        except KeyboardInterrupt:
            raise Interrupted from None


def _lines(screen: Screen) -> Iterator[str]:
    """The lines of standard input that say something."""
    if sys.stdin is None:
        return
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(errors="replace")
    talks = sys.stdin.isatty()
    while True:
        if talks:
            screen.ask("> ")
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line


def _pair(text: str, named: str) -> tuple[str, str]:
    parts = [part.strip() for part in text.split("|")]
    if len(parts) != 2 or not all(parts) or parts[0] == parts[1]:
        raise InputError(f"{named} names no two alternatives: separate two different ones by |, such as he | she")
    return parts[0], parts[1]


def _refuse(prompt: str, error: FairmendError, screen: Screen) -> None:
    """Say what is wrong with one line; the next one may be right."""
    screen.line({"prompt": prompt, "error": {"kind": type(error).__name__, "message": str(error)}})
    if not screen.as_json:
        screen.warn(f"Error: {error}")


def _show(prompt: str, pair: tuple[str, str], names: tuple[str, str], replies: list[Reply], screen: Screen) -> None:
    before, after = replies
    screen.line({"prompt": prompt, "alternatives": pair, "before": asdict(before), "after": asdict(after)})
    if screen.as_json:
        return
    from rich.table import Table

    table = Table("", *names, title_justify="left", show_lines=True)
    table.add_row(prompt, *(each.continuation or "(nothing)" for each in replies))
    table.add_row(" | ".join(pair), *(_preference(each, pair) for each in replies))
    screen.show(table)


def _preference(each: Reply, pair: tuple[str, str]) -> str:
    if each.preference is None:
        return "no probabilities: the model is broken"
    if not each.preference:
        return "neither"
    return f"{pair[0] if each.preference > 0 else pair[1]} by {abs(each.preference):.3f} nats"
