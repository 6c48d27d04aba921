"""Soft gates of a tiny model by processes to be killed, and a parent to start them, which imports what they need once.

For each directory on standard input the parent forks a session, which goes on with the run there, writes a line for
each step that it begins, and its gains at the end. The parent writes its process id, and in the end its exit code,
negative if a signal ended it.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import torch
from tiny_lm import tiny_lm
from torch import Tensor

from fairmend.errors import RunError
from fairmend.language.heads.gates import HeadGates
from fairmend.language.measurement.drift import drift
from fairmend.language.measurement.perplexity import PerplexityProtocol
from fairmend.language.models.models import LanguageModel
from fairmend.language.repair.soft_gates import Terms, find_gains
from fairmend.runs.parts import Parts
from fairmend.runs.store import Store

STEPS = 12
PREFERENCE = 2.09  # of the untouched model, between the tokens that it likes most and least after these items
TOKENS = torch.from_numpy(np.random.default_rng(0).integers(4, 96, 75))
WINDOWS = PerplexityProtocol("standard", 24, 24).windows(len(TOKENS))


def items_of(lm: LanguageModel) -> Tensor:
    """Prompts of five tokens, (24, 5)."""
    return torch.from_numpy(np.random.default_rng(1).integers(4, lm.vocabulary, (24, 5)))


def loss_of(lm: LanguageModel, items: Tensor, gates: Tensor, windows: int = 1) -> Iterator[Tensor]:
    """The share of a mean preference that is left, squared, and the drift on some windows of a text."""
    with HeadGates(lm.model, lm.head_map) as hooks:
        hooks.set(gates)
        last = lm.model(input_ids=items).logits[:, -1]
    yield ((last[:, 78] - last[:, 52]).mean() / PREFERENCE) ** 2
    yield 0.1 * drift(lm, TOKENS, WINDOWS[:windows], gates)


def terms_of(lm: LanguageModel) -> Terms:
    """The same on random items."""
    items = items_of(lm)
    return lambda gates, rng: loss_of(lm, items[rng.choice(len(items), 8, replace=False)], gates)


def session(lm: LanguageModel, directory: Path) -> None:
    """Find the gains, or go on where an earlier session was killed."""
    terms = terms_of(lm)
    begun = os.open(directory / "begun.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def noted(gates: Tensor, rng: np.random.Generator) -> Iterator[Tensor]:
        os.write(begun, b"step\n")  # past every buffer
        yield from terms(gates, rng)

    try:
        store = Store.open(directory / "run.sqlite")
    except RunError:
        store = Store.create(directory / "run.sqlite", {"kind": "soft gates"})
    with store:
        *_, gains = find_gains(lm.head_map.n_heads, noted, steps=STEPS, keep=Parts(store, {"seed": 0}))
    (directory / "gains.json").write_text(json.dumps(gains.tolist()))


def main() -> None:
    torch.set_num_threads(1)
    lm = tiny_lm()
    for line in sys.stdin:
        directory = Path(line.strip())
        directory.mkdir(exist_ok=True)
        child = os.fork()
        if child == 0:
            try:
                session(lm, directory)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
