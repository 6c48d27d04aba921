"""The saved figures of a language repair: what result.json and mask.json hold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fairmend.errors import ModelError
from fairmend.evaluation import Figures, Measurement
from fairmend.language.bias.bias import verdict
from fairmend.language.heads.heads import gains_of
from fairmend.language.heads.slicing import Slicing
from fairmend.language.measurement.judging import Judgement
from fairmend.language.measurement.texts import Text
from fairmend.language.models.models import LanguageModel
from fairmend.language.prompts.prompts import PromptSet
from fairmend.language.repair.differences import CHOSEN
from fairmend.language.repair.repair import Repair
from fairmend.masks import Mask, Space
from fairmend.records import Kind, built, plain, session, versions

RESULT = Kind("language repair")
MASK = Kind("language mask", file="mask.json", noun="mask")
SEARCH_CAVEAT = (
    "figures on the half that the search saw: they overstate the gain; the held-out figures are under 'held_out'"
)
MEANING = (
    "a dropped head's slice of the input of its output projection is 0, any other's is multiplied by its gain, where "
    "there are gains; the projection's bias stays"
)
_MASK_ENTRIES = {"schema", "schema_version", "model", "space", "dropped", "dropped_by_site", "meaning"}
PACKAGES = ("numpy", "scipy", "torch", "transformers", "tokenizers", "safetensors")


def figures_of(held_out: Mapping[str, Any]) -> dict[str, float]:
    """Saved held-out figures before and after on every axis, and their changes with intervals, by name."""
    judged = built(held_out, Judgement)
    found: dict[str, float] = {}
    for axis in judged.axes:
        for name, change in (("bias", axis.change), ("bias by the second scorer", axis.second)):
            if change is not None:
                values = {"before": change.before.value, "after": change.after.value, "change": change.change}
                values |= {"change_low": change.interval.low, "change_high": change.interval.high}
                found |= {f"{axis.axis}/{name}/{what}": value for what, value in values.items()}
    read, known = judged.perplexity, judged.knowledge
    values = {"before": read.before, "after": read.after, "times": read.ratio}
    values |= {"times_low": read.interval.low, "times_high": read.interval.high}
    found |= {f"perplexity/{what}": value for what, value in values.items()} | {"drift": judged.drift.value}
    if known is not None:
        values = {"before": known.before.mean, "after": known.after.mean, "kept": known.kept}
        values |= {"kept_low": known.interval.low, "kept_high": known.interval.high}
        found |= {f"knowledge/{what}": value for what, value in values.items()}
    return found


def describe_result(
    repair: Repair,
    lm: LanguageModel,
    *,
    slicing: Mapping[str, Any] | None = None,
    request: Mapping[str, Any] | None = None,
    command: str = "",
) -> dict[str, Any]:
    """Everything known about a repair, JSON-ready; two runs of the same repair differ under "session" only."""
    payload = {
        **RESULT.head,
        "outcome": {
            "improved": repair.improved,
            "feasible": repair.feasible,
            "interrupted": repair.run.stopped == "interrupted",
            **count_heads(gains_of(repair.mask)),
            "dropped_by_site": repair.space.by_site(repair.mask),
            "verdict": describe_outcome(repair),
        },
        "held_out": repair.held_out,
        "examples": {
            "chosen": CHOSEN,
            "masked": "letters within offensive words are starred",
            "pairs": repair.examples,
        },
        "slicing": None if slicing is None else dict(slicing),
        "search": {
            "caveat": SEARCH_CAVEAT,
            "figures": {"bias": repair.figures.bias, "utility": repair.figures.utility},
            "before": describe_measurement(repair.before),
            "after": describe_measurement(repair.after),
            "utility_floor": {"limit": repair.floor.limit, "better": repair.floor.better},
            "least_knowledge": None if math.isinf(repair.floor.knowledge) else repair.floor.knowledge,
            "most_drift": None if math.isinf(repair.floor.drift) else repair.floor.drift,
            "finalists": [
                {
                    "dropped": list(finalist.mask.units()),
                    **describe_gains(finalist.mask),
                    "rule": None if finalist.rule is None else finalist.rule.to_json(),
                    "within_floor": repair.floor.admits(finalist.measurement),
                    **describe_measurement(finalist.measurement),
                }
                for finalist in repair.finalists
            ],
            "stopped": repair.run.stopped,
        },
        "objectives": [objective.to_json(repair.mask) for objective in repair.objectives],
        "scores": repair.ranking,
        "settings": repair.settings.to_json(),
        "data": describe_data(repair.search_prompts, repair.judge_prompts, repair.texts),
        "model": describe_model(lm),
        "versions": versions(*PACKAGES),
        "session": session(request, command) | {"seconds": repair.run.seconds},
    }
    strict: dict[str, Any] = plain(payload)
    return strict


def describe_outcome(repair: Repair) -> str:
    """What came of the repair, in words: on held-out prompts where there are any."""
    if repair.held_out is not None and repair.held_out.main.change is not None:
        change = repair.held_out.main.change
        before = f"Before: {verdict(change.before)}"
        words = repair.held_out.main.verdict_on_change if repair.improved else "Nothing was changed."
        return f"{words} {before}"
    if repair.held_out is not None:
        return "The chosen heads break the model on held-out prompts: do not use this mask."
    return "Not judged on held-out prompts: the figures of the search half overstate the gain."


def describe_mask(mask: Mask, lm: LanguageModel) -> dict[str, Any]:
    """A mask with the model it belongs to, JSON-ready; `mask_for` reads it back."""
    space = lm.head_map.space(gains=bool(mask.dials))
    return {
        **MASK.head,
        "model": describe_model(lm),
        "space": plain(space),
        **describe_heads(mask, space),
        "meaning": MEANING,
    }


def describe_heads(mask: Mask, space: Space) -> dict[str, Any]:
    """Which heads a mask drops, said twice, and the gains of all, if it has any, JSON-ready."""
    return {"dropped": list(mask.units()), "dropped_by_site": space.by_site(mask), **describe_gains(mask)}


def describe_gains(mask: Mask) -> dict[str, Any]:
    """The gain of every head, 0 for dropped ones, as the entry `gains`; no entry for a mask without dials."""
    return {"gains": gains_of(mask).tolist()} if mask.dials else {}


def count_heads(gains: npt.NDArray[np.float64]) -> dict[str, int]:
    """How many heads there are, and how many of them are dropped, turned down and turned up, by their gains."""
    return {
        "dropped": int((gains == 0).sum()),
        "turned_down": int(((gains > 0) & (gains < 1)).sum()),
        "turned_up": int((gains > 1).sum()),
        "heads": len(gains),
    }


def count_saved(point: Mapping[str, Any], n_heads: int) -> dict[str, int]:
    """The same of an entry that `describe_heads` made, such as a point of a front."""
    gains = np.array(point.get("gains", np.ones(n_heads)), dtype=np.float64)
    gains[point["dropped"]] = 0
    return count_heads(gains)


def heads_in_words(counts: Mapping[str, int], off: str = "heads dropped") -> str:
    """The same as the beginning of a sentence: "4 of 270 heads dropped, 20 turned down, 3 turned up"."""
    turned = ("turned_down", "turned_up")  # results of fairmend 0.1 have neither
    moved = [f"{counts[name]} {name.replace('_', ' ')}" for name in turned if counts.get(name)]
    return ", ".join([f"{counts['dropped']} of {counts['heads']} {off}", *moved])


def mask_for(payload: Mapping[str, Any], lm: LanguageModel) -> Mask:
    """The mask that `describe_mask` described, if it was made for this model.

    Weights are compared where both have the same dtype; otherwise the configuration and the heads are.

    Raises:
        ModelError: it is no mask, or one of another model.
    """
    try:
        if {name: payload[name] for name in MASK.head} != MASK.head:
            raise ValueError(f"schema {payload['schema']!r} version {payload['schema_version']!r}")
        space, made_for, dropped = built(payload["space"], Space), payload["model"], payload["dropped"]
        if not isinstance(dropped, list) or not all(type(unit) is int for unit in dropped):
            raise ValueError("dropped is no list of whole numbers")
        gains = payload["gains"] if space.dials else None
        if gains is not None and not (isinstance(gains, list) and all(type(gain) in (int, float) for gain in gains)):
            raise ValueError("gains is no list of numbers")
        mask = space.mask(dropped, None if gains is None else [gain - 1 for gain in gains])
        entries = _MASK_ENTRIES | ({"gains"} if space.dials else set())
        by_site, odd = payload["dropped_by_site"], sorted(payload.keys() ^ entries)
        theirs, ours = made_for["fingerprint"], lm.fingerprint()
        compared = ["config_sha256"] + ["weights_sha256"] * (theirs["dtype"] == ours["dtype"])
        differing = [name for name in compared if theirs[name] != ours[name]]
        name = str(made_for["name"])
    except (KeyError, TypeError, ValueError, OverflowError, MemoryError) as error:
        raise ModelError(
            f"this is no mask of attention heads ({type(error).__name__}: {error}): give the mask.json of a language "
            "repair"
        ) from error
    if list(mask.units()) != dropped or space.by_site(mask) != by_site:
        raise ModelError(
            "the mask says twice which heads are dropped, as dropped and as dropped_by_site, and the two disagree: it "
            "was edited. Restore the mask.json that the repair wrote, or repair again"
        )
    if gains is not None and any(gains[unit] for unit in dropped):
        raise ModelError(
            "the mask gives a dropped head a gain other than 0: it was edited. Restore the mask.json that the repair "
            "wrote, or repair again"
        )
    if odd:
        what = "has the entry" if odd[0] in payload else "lacks the entry"
        raise ModelError(f"the mask {what} {odd[0]!r}: it was edited, or written by another version of fairmend")
    ours_space = lm.head_map.space(gains=gains is not None)
    if (space.sites, space.dials) != (ours_space.sites, ours_space.dials) or differing:
        raise ModelError(
            f"the mask was made for {name} ({space.n_units} heads), not for {lm.name} "
            f"({lm.head_map.n_heads} heads{'; ' + ', '.join(differing) + ' differ' if differing else ''}): give the "
            "model it was made for"
        )
    return mask


def describe_slicing(sliced: Slicing | None, reason: str = "") -> dict[str, Any]:
    """What removing whole key-value groups saved, or why it was not done, JSON-ready."""
    if sliced is None:
        return {"done": False, "reason": reason}
    return {
        "done": True,
        "removed_groups_per_layer": sliced.removed_groups,
        "removed_heads": sliced.removed_heads,
        "zeroed_heads": sliced.folded_heads,
        "parameters": dict(zip(("before", "after"), sliced.parameters, strict=True)),
        "cache_numbers_per_token": dict(zip(("before", "after"), sliced.cache_per_token, strict=True)),
    }


def slicing_in_words(described: Mapping[str, Any]) -> str:
    """What slicing saved, in a sentence."""
    if not described["done"]:
        return f"Not sliced, the dropped heads are zeros in the weights: {described['reason']}."
    parameters, cache = described["parameters"], described["cache_numbers_per_token"]
    zeroed = described["zeroed_heads"]
    return (
        f"Sliced: {described['removed_heads']} heads are gone from the checkpoint ({parameters['before']:,} -> "
        f"{parameters['after']:,} parameters, {1 - cache['after'] / cache['before']:.0%} less key-value cache)"
        + (f"; {zeroed} more are zeros in its weights." if zeroed else ".")
    )


def describe_model(lm: LanguageModel) -> dict[str, Any]:
    """Name, origin and identity of a model."""
    return {
        "name": lm.name,
        "source": lm.source,
        "revision": lm.revision,
        "licence": lm.licence,
        "notes": list(lm.notes),
        "architecture": lm.head_map.architecture,
        "fingerprint": lm.fingerprint(),
    }


def describe_measurement(measurement: Measurement) -> dict[str, Any]:
    """Bias and perplexity with their standard errors; single scores and the time taken are left out."""
    return {
        "bias": measurement.bias,
        "bias_se": measurement.bias_se,
        "perplexity": measurement.utility,
        "perplexity_se": measurement.utility_se,
        "n": measurement.n,
    }


def describe_data(
    search_prompts: PromptSet, judge_prompts: PromptSet, texts: tuple[Text, Text]
) -> dict[str, dict[str, Any]]:
    """What was searched with and what was judged on, JSON-ready."""
    described = {}
    for role, prompts, text in zip(("search", "judge"), (search_prompts, judge_prompts), texts, strict=True):
        notes = {"licence": prompts.licence, "notes": list(prompts.notes)}
        described[f"{role}_prompts"] = prompts.fingerprint() | notes
        described[f"{role}_text"] = text.fingerprint() | {"licence": text.licence}
    return described


def figures_in_words(figures: Figures) -> str:
    """The protocols of both figures."""
    return f"{figures.bias.name}: {figures.bias.protocol}; perplexity: {figures.utility.protocol}"
