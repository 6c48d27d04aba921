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
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import numpy.typing as npt
import torch
from tiny_lm import tiny_lm
from torch import Tensor

from fairmend.errors import RunError
from fairmend.language.heads.gates import HeadGates
from fairmend.language.measurement.drift import drift_curvature
from fairmend.language.models.models import LanguageModel
from fairmend.language.repair.soft_gates import find_gains
from fairmend.runs.parts import Arrays, Parts
from fairmend.runs.store import Store

STEPS = 60
TOKENS = torch.from_numpy(np.random.default_rng(0).integers(4, 96, 320))


def items_of(lm: LanguageModel) -> Tensor:
    """Prompts of five tokens, (24, 5)."""
    return torch.from_numpy(np.random.default_rng(1).integers(4, lm.vocabulary, (24, 5)))


def effects_of(lm: LanguageModel) -> Callable[[npt.NDArray[np.float64]], Arrays]:
    """A mean preference between two tokens after the items, and its gradient."""
    items = items_of(lm)

    def effects(gains: npt.NDArray[np.float64]) -> Arrays:
        gates = torch.tensor(gains, dtype=torch.float32, requires_grad=True)
        with HeadGates(lm.model, lm.head_map) as hooks:
            hooks.set(gates)
            last = lm.model(input_ids=items).logits[:, -1]
        mean = (last[:, 78] - last[:, 52]).mean()
        (slopes,) = torch.autograd.grad(mean, gates)
        found = {"deviations": mean.detach()[None], "slopes": slopes[:, None], "known_slopes": torch.zeros(len(gates))}
        return {"known": np.array(np.nan), **{name: each.double().numpy() for name, each in found.items()}}

    return effects


def session(lm: LanguageModel, directory: Path) -> None:
    """Find the gains, or go on where an earlier session was killed."""
    effects = effects_of(lm)
    begun = os.open(directory / "begun.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def noted(gains: npt.NDArray[np.float64]) -> Arrays:
        os.write(begun, b"step\n")  # past every buffer
        return effects(gains)

    try:
        store = Store.open(directory / "run.sqlite")
    except RunError:
        store = Store.create(directory / "run.sqlite", {"kind": "soft gates"})
    with store:
        keep = Parts(store, {})
        *_, gains = find_gains(drift_curvature(lm, TOKENS, keep=keep), noted, steps=STEPS, keep=keep)
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
