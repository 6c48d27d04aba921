"""Repairs of a real bias in a real model at equal cost: every method, several splits, judged on items never searched.

    OMP_NUM_THREADS=1 python benchmarks/choices_repair.py --out choices --seeds 5 --tokens 400000

Every repair may send so many tokens through the model (going backward counts twice as much as forward), and is judged
on occupations, sentences and words of knowledge that its search never saw. What is done is kept in the folder: the same
command goes on, and several of them with different --methods may share it.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch

from fairmend.language.models.models import LanguageModel, load_model
from fairmend.language.prompts.benchmarks import choice_benchmark
from fairmend.language.prompts.knowledge import knowledge_items
from fairmend.language.protocols import ReadingSettings
from fairmend.language.repair.repair import repair_model
from fairmend.language.repair.settings import RepairSettings, SoftGates
from fairmend.language.repair.subject import Subject
from fairmend.language.studies.equal_cost import plan_repair
from fairmend.statistics import t_interval

METHODS = (
    "soft",
    "soft, heads alone",
    "fasp",
    "fasp, nothing spared",
    "attention-pruning",
    "active",
    "genetic",
    "performance-only",
    "fairness-only",
    "magnitude",
    "gradient",
    "random",
)
MEANS = ("gap", "after", "removed", "kept", "drift", "times", "units", "tokens", "seconds")


def repair(lm: LanguageModel, name: str, seed: int, given: argparse.Namespace) -> dict[str, Any]:
    """One repair by one method on one split, with its held-out figures."""
    method, _, variant = name.partition(", ")
    spared = variant == "nothing spared"
    settings = RepairSettings(
        prompts=given.items,
        reading=ReadingSettings(tokens=given.text_tokens),
        scoring_tokens=given.text_tokens,
        max_perplexity=given.max_perplexity,
        keep_knowledge=None if spared else 0.9,
        spare_knowledge=0.0 if spared else 0.2,
        alpha=given.alpha,
        soft=SoftGates(units="heads" if variant == "heads alone" else "all"),
        seed=seed,
    )
    subject = Subject(lm, choice_benchmark(given.bias), knowledge=knowledge_items())
    plan = plan_repair(settings, method, seed, given.tokens, subject)  # type: ignore[arg-type]
    begun = process_time()
    found = repair_model(subject, plan.settings)
    held = found.held_out
    assert held is not None
    assert held.main.change is not None
    assert held.knowledge is not None
    change = held.main.change
    dials = [dial for dial in found.mask.dials if dial]
    return {
        "method": name,
        "seed": seed,
        "gap": change.before.value,
        "after": change.after.value,
        "change": change.change,
        "low": change.interval.low,
        "high": change.interval.high,
        "removed": -change.change / change.before.value,
        "searched": found.before.bias - found.after.bias,
        "kept": held.knowledge.kept,
        "accuracy": held.knowledge.after.accuracy,
        "drift": held.drift.value,
        "times": held.perplexity.ratio,
        "units": len(dials) or found.mask.size,
        "tokens": plan.tokens,
        "subsets": plan.settings.subsets.samples if plan.settings.searches_subsets else None,
        "finalists": len(found.finalists),
        "seconds": process_time() - begun,
    }


def summary(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A Markdown table of means over splits with half of their 95 % intervals, and the pairs against FASP."""
    lines = [
        "| method | splits | gap | after | removed | knowledge kept | drift | perplexity | units | tokens | CPU-s |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    of_fasp = {row["seed"]: row["removed"] for row in rows if row["method"] == "fasp"}
    pairs = []
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        means = {name: t_interval([row[name] for row in own]) for name in MEANS}

        def cell(name: str, form: str, means: dict[str, Any] = means) -> str:
            mean = means[name]
            half = "" if math.isnan(mean.half_width) else f" +- {mean.half_width:{form}}"
            return f"{mean.mean:{form}}{half}"

        cells = [cell("gap", ".3f"), cell("after", ".3f"), cell("removed", ".0%"), cell("kept", ".0%")]
        cells += [cell("drift", ".3f"), cell("times", ".3f"), f"{means['units'].mean:.0f}"]
        cells += [f"{means['tokens'].mean:,.0f}", f"{means['seconds'].mean:.0f}"]
        lines.append(f"| {method} | {len(own)} | {' | '.join(cells)} |")
        both = [row["removed"] - of_fasp[row["seed"]] for row in own if row["seed"] in of_fasp]
        if method != "fasp" and len(both) > 1:
            mean = t_interval(both)
            spread = float(np.std(both, ddof=1))
            needed = (
                "" if not mean.mean else f"; about {math.ceil((2.8 * spread / mean.mean) ** 2)} splits would show it"
            )
            shown = mean.interval.contains(0.0)
            pairs.append(f"* {method} removes {mean.mean:+.0%} {mean.interval} more than fasp{needed if shown else ''}")
    return [*lines, "", *pairs]


def main() -> None:
    """Repair, keep every row, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--bias", default="pronouns")
    parser.add_argument("--out", type=Path, default=Path("choices"))
    parser.add_argument("--methods", default=None, help="separated by semicolons; all by default")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--tokens", type=int, default=400_000)
    parser.add_argument("--items", type=int, default=500)
    parser.add_argument("--text-tokens", type=int, default=2048)
    parser.add_argument("--alpha", type=float, default=0.1)
    parser.add_argument("--max-perplexity", type=float, default=1.05)
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    methods = METHODS if given.methods is None else [name.strip() for name in given.methods.split(";")]
    lm = load_model(given.model)
    for seed in range(given.first_seed, given.first_seed + given.seeds):
        for name in methods:
            file = given.out / f"{seed}-{name.replace(', ', '-').replace(' ', '-')}.json"
            if not file.exists():
                row = repair(lm, name, seed, given)
                file.write_text(json.dumps(row, indent=1), encoding="utf-8")
                print(
                    f"{name}, split {seed}: removed {row['removed']:.0%}, knowledge kept {row['kept']:.0%}, "
                    f"{row['times']:.3f} times the perplexity, {row['seconds']:.0f} CPU-s",
                    flush=True,
                )
    rows = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(given.out.glob("*.json"))]
    rows.sort(key=lambda row: (METHODS.index(row["method"]) if row["method"] in METHODS else 99, row["seed"]))
    print("\n".join(summary(rows)))


if __name__ == "__main__":
    main()
