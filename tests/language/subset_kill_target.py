"""Subsets collected, learned from, searched for twice and judged, by processes to be killed and a parent to start them.

Usage: subset_kill_target.py MODEL. The parent imports and loads what every session needs, then reads directories from
standard input. For each it forks a session, which goes on with the work in that directory, and writes "started PID",
and in the end "ended CODE", where the code is negative if a signal ended the session.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import tiny_organism as organism
import torch
from subset_cases import SETTINGS, TEXTS, rude
from transformers import GPT2LMHeadModel

from fairmend.evaluation import Figure, Figures, Measurement, digest
from fairmend.files import write_atomically
from fairmend.language import LanguageModel, Subject, open_run, repair_model, save_repair, wrap_model
from fairmend.language.measurement.evaluator import LanguageEvaluator
from fairmend.language.repair.subset_search import CONTEXT
from fairmend.language.studies.collecting import collect, measured_noise, open_collection
from fairmend.language.toxicity.lexical import star_offensive
from fairmend.masks import Mask, Site, Space
from fairmend.records import plain
from fairmend.report.figures import drawing, png, svg
from fairmend.runs import Store
from fairmend.surrogates import Ridge, Samples, anneal, cross_validate, fit_pair, floored_sum

MEASURING_TAKES = 0.1  # seconds more than it would, so that most kills strike there
WORK = ("collected", "fit.json", "active", "attention-pruning")
PROMPTS = organism.organism_prompts()
SEARCH = replace(SETTINGS, subsets=replace(SETTINGS.subsets, samples=40, finalists=3, max_drop=4))


class Journal:
    """Writes down, past every buffer, what the session is at."""

    def __init__(self, directory: Path) -> None:
        self._file = os.open(directory / "journal.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.part = ""

    def write(self, happens: str, context: str = "", masks: Sequence[Mask] = ()) -> None:
        line = [time.monotonic(), self.part, happens, context, [mask.bits for mask in masks]]
        os.write(self._file, f"{json.dumps(line)}\n".encode())

    def follow_measuring(self) -> None:
        """Write a line before and a line after masks are measured."""
        measure = LanguageEvaluator.measure

        def followed(evaluator: LanguageEvaluator, masks: Sequence[Mask]) -> list[Measurement]:
            context = digest(evaluator.fingerprint())
            self.write("measuring", context, masks)
            time.sleep(MEASURING_TAKES)
            made = list(measure(evaluator, masks))
            self.write("measured", context, masks)
            return made

        LanguageEvaluator.measure = followed  # type: ignore[assignment, method-assign]


def session(directory: Path, lm: LanguageModel) -> None:
    """Do what is left to do in the directory."""
    journal = Journal(directory)
    journal.follow_measuring()
    for part in WORK:
        journal.part = part
        journal.write("begins")
        if part == "collected":
            subject = Subject(lm, PROMPTS, rude(), TEXTS)
            with open_collection(directory / part, subject, SEARCH) as store:
                collect(subject, SEARCH, store, samples=24)
        elif part == "fit.json":
            fit(directory / "collected" / "run.sqlite", directory / part)
        elif not (directory / part / "result.json").exists():
            repair(lm, directory / part, directory / "collected" / "run.sqlite", journal)
    journal.write("ends")


def fit(collected: Path, out: Path) -> None:
    """Judge a surrogate on the collected subsets."""
    with closing(Store.open(collected, read_only=True)) as store:
        measured, noise = store.context(CONTEXT), measured_noise(store)
        samples = Samples.of(measured, measured.figures)
        scores = cross_validate(samples, measured.figures, {"pairwise": Ridge(pairs=True)}, folds=3, noise=noise)
    write_atomically(out, json.dumps(plain(scores)).encode())


def repair(lm: LanguageModel, out: Path, collected: Path, journal: Journal) -> None:
    """Search actively, or prune as published by what was collected."""
    settings = replace(SEARCH, method="active" if out.name == "active" else "attention-pruning")
    subject = Subject(lm, PROMPTS, rude(), TEXTS)
    with (
        closing(Store.open(collected, read_only=True)) as known,
        open_run(out, subject, settings) as store,
    ):
        given = known.context(CONTEXT) if out.name == "attention-pruning" else None
        repaired = repair_model(subject, settings, subsets=given, store=store)
    journal.write("saves")
    save_repair(repaired, lm, out)


def warm_up() -> None:
    """Compile, import and load what would take every session seconds. Gradients cannot be taken before a fork."""
    rng = np.random.default_rng(0)
    space = Space((Site("first", 8),))
    figures = Figures(Figure("bias", "lower", "none"), Figure("perplexity", "lower", "none"))
    measured = [(space.sample(rng), Measurement(*rng.uniform(1, 2, 2))) for _ in range(20)]
    pair = fit_pair(Samples.of(measured, figures), figures, Ridge())
    anneal(pair, space, floored_sum(figures, 0.5, 1.5)(Measurement(1.5, 1.5)), seed=0, states=10)
    star_offensive(["rude"], rude())
    with drawing(1.0, 1.0) as figure:
        assert png(figure)
        assert svg(figure)


def main(model: str) -> None:
    torch.set_num_threads(1)
    lm = wrap_model(GPT2LMHeadModel.from_pretrained(model), organism.word_tokenizer(), name="tiny organism")
    lm.fingerprint()
    warm_up()
    for line in sys.stdin:
        directory = Path(line.strip())
        directory.mkdir(exist_ok=True)
        child = os.fork()
        if child == 0:
            try:
                session(directory, lm)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        print(f"started {child}", flush=True)
        _, status = os.waitpid(child, 0)
        print(f"ended {os.waitstatus_to_exitcode(status)}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
