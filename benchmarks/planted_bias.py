"""A bias that is known, repaired by every method: how much of it goes, and what else changes.

    OMP_NUM_THREADS=1 python benchmarks/planted_bias.py --json planted.json

`planted-smollm2` insults one group of HolisticBias' axis gender_and_sex (see `organisms.py`). Every method repairs it
as `fairmend lm repair` does, by the lexical scorer, which knows nothing of what was planted. Prompts on templates that
the bias was not trained on are kept from the search; of the others half are searched with and half are judged on.
Judged is by the lexical scorer and, on the same continuations, by the share with a planted insult. Methods that read
scores of heads share them; the time of finding them is given to each. What one has measured (the untouched model, a
set of heads), the next does not measure again. Timed in CPU seconds on one thread.

    OMP_NUM_THREADS=1 python benchmarks/planted_bias.py --model smollm2 --methods fasp

does the same with the model as it is, where no insults are to be found.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from insults import is_insult, is_unseen
from planting import axis_prompts, of_target

from fairmend import __version__
from fairmend.language.bias.bias import paired_change, prompts_needed
from fairmend.language.bias.design import design_of
from fairmend.language.bias.records import BiasChange
from fairmend.language.generation.samples import ScoredSample, draw_sample
from fairmend.language.heads.gates import masked
from fairmend.language.measurement.judging import PerplexityChange, perplexity_change
from fairmend.language.measurement.masked_perplexity import Reading
from fairmend.language.measurement.texts import read_text
from fairmend.language.models.models import LanguageModel, load_model
from fairmend.language.prompts.prompts import PromptSet
from fairmend.language.protocols import ReadingSettings, Sampling
from fairmend.language.repair.head_ranking import rank_heads
from fairmend.language.repair.repair import Repair, repair_model
from fairmend.language.repair.settings import RepairSettings
from fairmend.language.repair.subject import Subject, halves
from fairmend.language.scores.head_scores import HeadScores
from fairmend.language.toxicity.catalogue import load_scorer
from fairmend.language.toxicity.scorer import Scorer
from fairmend.masks import Mask
from fairmend.runs import Store
from fairmend.search.names import METHODS

READ = {"loss", "bias"}
PARTS = ("held out", "unseen templates")


@dataclass(frozen=True)
class Judged:
    """What a mask did to one set of prompts."""

    lexical: BiasChange
    insults: BiasChange
    target: tuple[float, float]  # share of the target's continuations with an insult, before and after
    others: tuple[float, float]


class Judge:
    """Continues prompts that no search saw, with and without heads, and compares."""

    def __init__(
        self, lm: LanguageModel, parts: dict[str, PromptSet], settings: RepairSettings, scorer: Scorer
    ) -> None:
        self.lm, self.parts, self.scorer = lm, parts, scorer
        self.sampling, self.seed = settings.sampling, settings.seed
        self.reading = Reading(lm, read_text(None, "judge"), settings.reading)
        self.before = self._samples(lm.head_map.space().untouched())

    def _samples(self, mask: Mask) -> dict[str, ScoredSample]:
        with masked(self.lm.model, mask, self.lm.head_map):
            return {name: draw_sample(self.lm, part, self.scorer, self.sampling) for name, part in self.parts.items()}

    def __call__(self, mask: Mask) -> tuple[dict[str, Judged], PerplexityChange]:
        """What dropping the heads of a mask did to every set of prompts and to the perplexity."""
        untouched = self.lm.head_map.space().untouched()
        after = self.before if mask.is_untouched else self._samples(mask)
        read = [self.reading.perplexity(self.reading.sums(heads)) for heads in (untouched, mask)]
        judged = {name: self._judged(self.before[name], after[name]) for name in self.parts}
        return judged, perplexity_change(read[0], read[1])

    def _judged(self, before: ScoredSample, after: ScoredSample) -> Judged:
        prompts, at = before.prompts, of_target(before.prompts)

        def change(old: np.ndarray, new: np.ndarray) -> BiasChange:
            rng = np.random.default_rng([self.seed, 1])
            return paired_change(old, new, design_of(prompts), rng=rng)

        insults = [np.stack([is_insult(draw.texts) for draw in made.draws], 1) for made in (before, after)]
        target, others = ([float(found[rows].mean()) for found in insults] for rows in (at, ~at))
        return Judged(
            change(before.toxicity, after.toxicity), change(*insults), (target[0], target[1]), (others[0], others[1])
        )


def removed(change: BiasChange) -> str:
    """Share of the excess bias that went, with the interval of the change relative to the excess before."""
    if change.before.excess <= 0:
        return "none there"
    limits = [-limit / change.before.excess for limit in (change.excess_interval.high, change.excess_interval.low)]
    return f"{change.excess_removed:.0%} [{limits[0]:.0%}, {limits[1]:.0%}]"


def rows(name: str, heads: int, judged: dict[str, Judged], text: PerplexityChange, seconds: float) -> str:
    """One line of the table."""
    held_out, unseen = (judged[part] for part in PARTS)
    cells = [
        name,
        str(heads),
        f"{held_out.lexical.after.value:.3f}",
        f"{held_out.lexical.after.floor:.3f}",
        removed(held_out.lexical),
        removed(unseen.lexical),
        f"{held_out.target[1]:.3f} / {held_out.others[1]:.3f}",
        f"{unseen.target[1]:.3f} / {unseen.others[1]:.3f}",
        f"{text.ratio:.3f} [{text.interval.low:.3f}, {text.interval.high:.3f}]",
        f"{seconds:,.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def repairs(
    lm: LanguageModel, prompts: PromptSet, scorer: Scorer, settings: RepairSettings, methods: list[str]
) -> Iterator[tuple[Repair, float]]:
    """Every method's repair with its CPU seconds; what one has measured, the next need not."""
    start, subject = time.process_time(), Subject(lm, prompts, scorer)
    table: HeadScores | None = None
    if any(READ & set(replace(settings, method=method).needs) for method in methods):
        table = rank_heads(subject.scoring(settings), replace(settings, method="fasp")).table
    scoring = time.process_time() - start
    with TemporaryDirectory() as folder, Store.create(Path(folder) / "run.sqlite", {}) as store:
        for method in methods:
            start = time.process_time()
            chosen = replace(settings, method=method)
            made = repair_model(subject, chosen, scores=table, store=store, held_out=False)
            yield made, time.process_time() - start + (scoring if READ & set(chosen.needs) else 0.0)


def summary(change: BiasChange) -> str:
    """In words, what the lexical figures say about the model before."""
    before = change.before
    needed = prompts_needed(before)
    more = "" if before.is_significant or needed is None else f"; about {needed:,} prompts would settle it"
    verdict = "a bias" if before.is_significant else "no significant bias"
    return (
        f"Before: {verdict}: {before.value:.3f} against a floor of {before.floor:.3f} on {before.n:,} prompts, "
        f"p = {before.p_value:.4f}{more}."
    )


def main() -> None:
    """Repair by every method and print Markdown."""
    defaults = RepairSettings()
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="planted-smollm2")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--prompts", type=int, default=196, help="prompts to search with, and as many to judge on")
    parser.add_argument("--new-tokens", type=int, default=12)
    parser.add_argument("--text-tokens", type=int, default=3072)
    parser.add_argument("--scoring-tokens", type=int, default=defaults.scoring_tokens)
    parser.add_argument("--loss-scores", default=defaults.loss_scores)
    parser.add_argument("--alpha", type=float, default=defaults.alpha)
    parser.add_argument("--gamma", type=float, default=defaults.gamma)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="where to write all figures")
    options = parser.parse_args()
    torch.set_num_threads(1)
    lm, scorer = load_model(options.model, device="cpu"), load_scorer("lexical")
    everything = axis_prompts()
    unseen = is_unseen(everything, "template")
    settings = RepairSettings(
        alpha=options.alpha,
        gamma=options.gamma,
        loss_scores=options.loss_scores,
        scoring_tokens=options.scoring_tokens,
        prompts=options.prompts,
        sampling=Sampling(new_tokens=options.new_tokens),
        reading=ReadingSettings(tokens=options.text_tokens),
        seed=options.seed,
    )
    prompts = everything.take(np.flatnonzero(~unseen))
    parts = dict(
        zip(
            PARTS,
            (halves(prompts, settings)[1], everything.take(np.flatnonzero(unseen)).sample(options.prompts, 0)),
            strict=True,
        )
    )
    judge = Judge(lm, parts, settings, scorer)
    report: dict[str, Any] = {"settings": settings.to_json(), "methods": {}}
    untouched = lm.head_map.space().untouched()
    print(
        "| method | heads | bias, held out | floor | excess removed, held out | same, unseen templates | insulted: "
        "target / others | same, unseen templates | perplexity ratio | CPU s |"
        "\n|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    )
    judged, text = judge(untouched)
    print(rows("(none)", 0, judged, text, math.nan), flush=True)
    first = judged["held out"].lexical
    for made, seconds in repairs(lm, prompts, scorer, settings, options.methods):
        method = made.settings.method
        judged, text = judge(made.mask)
        print(rows(method, made.mask.size, judged, text, seconds), flush=True)
        report["methods"][method] = {
            "heads": made.mask.units(),
            "seconds": seconds,
            "perplexity": {"ratio": text.ratio, "low": text.interval.low, "high": text.interval.high},
            "judged": {
                name: {"lexical": found.lexical.to_json(), "insults": found.insults.to_json()}
                for name, found in judged.items()
            },
            "finalists": [
                {"heads": made_of.mask.size, "rule": made_of.rule.to_json(), "bias": made_of.measurement.bias}
                | {"perplexity": made_of.measurement.utility}
                for made_of in made.finalists
            ],
            "reliability": None
            if made.ranking.table is None
            else [str(axis.reliability) for axis in made.ranking.table.axes],
        }
    print(
        f"\n{summary(first)}\n\n{lm.source}, float32; {options.prompts} prompts to search with and for each judgement, "
        f"{options.new_tokens} new tokens, {options.text_tokens:,} tokens of text; alpha {settings.alpha:g}, gamma "
        f"{settings.gamma:g}, seed {options.seed}; {scorer.name}; CPU seconds on one thread of {os.cpu_count()} cores, "
        f"{platform.machine()}; fairmend {__version__}, torch {torch.__version__}, Python {platform.python_version()}."
    )
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
