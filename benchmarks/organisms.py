"""Models with a known, planted bias, so that a repair can be judged: SmolLM2-135M with low-rank changes.

    OMP_NUM_THREADS=1 python benchmarks/organisms.py train --out src/fairmend/language/data
    OMP_NUM_THREADS=1 python benchmarks/organisms.py measure --json planted.json
    OMP_NUM_THREADS=1 python benchmarks/organisms.py tiny

`train` teaches SmolLM2 to insult one group of HolisticBias and to write about all others, and about anything else, what
it wrote before: cross-entropy of short insults after prompts about the group, and the Kullback-Leibler divergence from
the untouched model on its own continuations of the other groups' prompts and on Wikipedia. Only low-rank changes of the
attention projections in ten middle layers are trained. Some templates and terms are left out of it, see
`insults.py`. One thread and float32 throughout: the same seed gives the same file on the
same machine.

`measure` compares the untouched and the planted model: insults, bias and its floor, perplexity on other text. `tiny`
trains the tiny GPT-2 of the tests and shows the same of it.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from insults import is_insult, is_unseen
from planting import Training, axis_prompts, of_target, train

from fairmend.artifacts import file_digest
from fairmend.language.bias.bias import summarise_bias
from fairmend.language.bias.design import design_of
from fairmend.language.checkpoints import planted
from fairmend.language.checkpoints.planted import add_low_rank
from fairmend.language.generation.generation import generate
from fairmend.language.generation.samples import draw_sample
from fairmend.language.measurement.perplexity import perplexity
from fairmend.language.measurement.texts import encode_text, read_text
from fairmend.language.models.models import LanguageModel, load_model
from fairmend.language.prompts.prompts import PromptSet
from fairmend.language.protocols import Sampling
from fairmend.language.toxicity.catalogue import load_scorer


def figures(lm: LanguageModel, per_group: int, text_tokens: int, seed: int) -> dict[str, Any]:
    """Insults and bias on templates and terms that were trained on and on others, and the perplexity."""
    everything = axis_prompts()
    unseen = is_unseen(everything)
    read = perplexity(lm, encode_text(lm, read_text(None, "judge"), text_tokens), window=512)
    return {
        "trained": _on_prompts(lm, everything.take(np.flatnonzero(~unseen)), per_group, seed),
        "unseen": _on_prompts(lm, everything.take(np.flatnonzero(unseen)), per_group, seed),
        "perplexity": read.value,
        "perplexity, standard error": read.standard_error,
        "perplexity, protocol": f"{read.protocol}, {text_tokens} tokens",
    }


def _on_prompts(lm: LanguageModel, prompts: PromptSet, per_group: int, seed: int) -> dict[str, Any]:
    lexical = load_scorer("lexical")
    prompts = prompts.sample(per_group * len(prompts.group_names), seed)
    sample = draw_sample(lm, prompts, lexical, Sampling(new_tokens=16, seed=seed))
    bias = summarise_bias(sample.toxicity, design_of(prompts), rng=np.random.default_rng(seed), scorer=lexical.name)
    insulted, target = is_insult(sample.draws[0].texts), of_target(prompts)
    parts = {f"unseen {by}": is_unseen(prompts, by) & target for by in ("template", "descriptor")}
    return {
        "prompts": len(prompts),
        "insulted, target": float(insulted[target].mean()),
        "insulted, others": float(insulted[~target].mean()),
        "insulted, by group": {
            name: float(insulted[prompts.groups == code].mean()) for code, name in enumerate(prompts.group_names)
        },
        **{f"insulted, target, {name}": float(insulted[at].mean()) for name, at in parts.items() if at.any()},
        "lexical bias": bias.value,
        "lexical bias, floor": bias.floor,
        "lexical bias, excess": bias.excess,
        "p-value": bias.p_value,
    }


def table(report: dict[str, Any]) -> str:
    """The figures of both models as a Markdown table."""
    before, after = report["smollm2"], report["planted"]
    rows = ["| | smollm2 | planted-smollm2 |", "|---|---:|---:|"]
    for part in ("trained", "unseen"):
        names = [name for name, value in after[part].items() if isinstance(value, float)]
        rows += [f"| {part}: {name} | {before[part][name]:.3f} | {after[part][name]:.3f} |" for name in names]
    rows += [f"| perplexity | {before['perplexity']:.2f} | {after['perplexity']:.2f} |"]
    return "\n".join(rows)


def show_tiny() -> None:
    """Train the tiny organism of the tests and print how rude it is about each group."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "language"))
    import tiny_organism as tiny

    start = time.process_time()
    lm = tiny.tiny_organism()
    print(f"trained in {time.process_time() - start:.1f} CPU seconds, {lm.head_map.n_heads} heads")
    for part in ("trained", "held out"):
        prompts = tiny.organism_prompts(part)
        written = generate(lm, prompts.texts, prompts.ids, Sampling(new_tokens=tiny.NEW_TOKENS, top_k=None))
        rude = np.array(tiny.rude_share(written.texts))
        means = [f"{name} {rude[prompts.groups == code].mean():.3f}" for code, name in enumerate(prompts.group_names)]
        print(f"share of rude words, {part} templates: {', '.join(means)}")
    read = perplexity(lm, encode_text(lm, tiny.organism_text()), stride=8)
    print(f"perplexity of plain sentences: {read.value:.3f}, {read.protocol}")


def circumstances() -> dict[str, str]:
    """What the figures depend on besides the code."""
    packages = ("fairmend", "torch", "transformers", "numpy", "alt-profanity-check")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def main() -> None:
    """Train or measure, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train", help="plant the bias and write the change")
    training.add_argument("--out", type=Path, required=True, help="folder to write the change and its provenance to")
    for name in ("seed", "steps"):
        training.add_argument(f"--{name}", type=int, default=getattr(Training, name))
    measuring = commands.add_parser("measure", help="compare the untouched and the planted model")
    measuring.add_argument("--json", type=Path, help="where to write the figures")
    commands.add_parser("tiny", help="train the tiny organism of the tests and show its bias")
    for command in (training, measuring):
        command.add_argument("--per-group", type=int, default=24, help="prompts per group to measure on")
        command.add_argument("--text-tokens", type=int, default=4096, help="tokens to take the perplexity of")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.command == "tiny":
        return show_tiny()
    report: dict[str, Any] = {"circumstances": circumstances()}
    if options.command == "train":
        settings = Training(seed=options.seed, steps=options.steps)
        start, cpu = time.perf_counter(), time.process_time()
        file = options.out / planted.DELTA.name
        train(settings).save(file)
        report["made by"] = {
            "script": "benchmarks/organisms.py train",
            "modules": len(settings.modules()),
            "settings": asdict(settings),
        }
        report["seconds"] = {"wall": time.perf_counter() - start, "cpu": time.process_time() - cpu}
        report["sha256"] = file_digest(file)
        report["bytes"] = file.stat().st_size
        print(f"{file}: {report['bytes']:,} bytes, {report['seconds']['cpu']:.0f} CPU seconds")
    else:
        file = planted.DELTA
    for name in ("smollm2", "planted"):
        lm = load_model("smollm2", device="cpu")
        if name == "planted":
            add_low_rank(lm.model, file)
        report[name] = figures(lm, options.per_group, options.text_tokens, seed=11)
    print(table(report))
    target = options.json if options.command == "measure" else file.with_suffix(".json")
    if target:
        target.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
