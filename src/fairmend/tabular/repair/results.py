"""The saved figures of a repair: what result.json, mask.json and front.json hold (docs/reference/files-tabular.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fairmend.evaluation import Figures, Measurement
from fairmend.records import Kind, built, session, versions
from fairmend.tabular.data.datasets import Dataset
from fairmend.tabular.fairness.findings import Comparison, verdict, verdict_on_change
from fairmend.tabular.fairness.metrics import OBJECTIVES
from fairmend.tabular.names import DropName
from fairmend.tabular.networks.activations import FloatArray
from fairmend.tabular.networks.networks import Network
from fairmend.tabular.repair.audit import contradiction
from fairmend.tabular.repair.repair import Repair

REPAIR, MASK, FRONT = (
    Kind("tabular repair"),
    Kind("tabular mask", 1, "mask.json"),
    Kind("tabular front", 1, "front.json"),
)
HELD_OUT = "test"
_PACKAGES = ("numpy", "scipy", "scikit-learn", "numba", "torch", "onnx", "safetensors")

MEANINGS: Mapping[DropName, str] = {
    "output": "a dropped neuron emits 0, as in dropout",
    "weights": "a dropped neuron's incoming weights are 0 and its bias is kept: it emits activation(bias)",
    "clamp": "a dropped neuron emits its largest output over the search rows",
}
SEARCH_CAVEAT = (
    "figures on the rows that the search saw: they overstate the gain; the held-out figures are under 'splits'"
)


def figures_of(result: Mapping[str, Any]) -> dict[str, float]:
    """The figures of a saved result before and after on every split, and their changes with intervals, by name."""
    found: dict[str, float] = {}
    for split, judged in result["splits"].items():
        for name, (before, after, change) in built(judged["comparison"], Comparison).figures().items():
            values = {"before": before.value, "after": after.value, "change": change.value}
            values |= {"change_low": change.interval.low, "change_high": change.interval.high}
            found |= {f"{split}/{name}/{what}": value for what, value in values.items()}
    return found


def role_of(split: str, repair: Repair) -> str:
    """Whether the search saw a split, in words."""
    if split in repair.settings.splits:
        return "the search saw these rows, so the gain is overstated"
    return "held out: the search never saw these rows" if split == HELD_OUT else "not seen by the search"


def describe_result(
    repair: Repair,
    original: Network,
    dataset: Dataset,
    *,
    request: Mapping[str, Any],
    slim: Network | None,
    command: str,
) -> dict[str, Any]:
    """Everything known about a repair, a record; two runs of the same repair differ under "session" only."""
    run = repair.run
    return {
        "outcome": {
            "improved": repair.improved,
            "feasible": repair.feasible,
            "interrupted": run.stopped == "interrupted",
            "dropped": repair.mask.size,
            "units": original.n_units,
            "dropped_by_site": repair.space.by_site(repair.mask),
            "dials": describe_dials(repair, original),
            "verdict": _verdict(repair),
        },
        "positive": dataset.positive,
        "warnings": doubts(original, dataset),
        "splits": {
            split: {
                "rows": comparison.before.n,
                "seen_by_search": split in repair.settings.splits,
                "role": role_of(split, repair),
                "verdict_before": verdict(comparison.before),
                "verdict_on_change": verdict_on_change(comparison),
                "comparison": comparison,
            }
            for split, comparison in repair.splits.items()
        },
        "search": {
            "caveat": SEARCH_CAVEAT,
            "rows": repair.settings.splits,
            "figures": repair.figures,
            "before": describe_measurement(repair.before, repair.figures),
            "after": describe_measurement(repair.after, repair.figures),
            "utility_floor": repair.floor,
            "space": repair.space,
            "asked": run.asked,
            "measured": repair.measured,
            "stopped": run.stopped,
        },
        "settings": repair.settings.to_json(),
        "seeds": {"search": repair.settings.seed, "split": request.get("split_seed")},
        "protocol": _protocol(repair),
        "data": dataset.fingerprint()
        | {
            "source": dataset.source,
            "licence": dataset.licence,
            "notes": dataset.notes,
            "rows_by_split": {split: len(rows) for split, rows in dataset.splits.items()},
            "people_by_split_group_class": {
                split: dict(zip(dataset.group_names, dataset.group_counts(split).tolist(), strict=True))
                for split in dataset.splits
            },
        },
        "network": describe_network(original) | {"notes": original.notes},
        "repaired_network": describe_network(repair.network),
        "slim_network": None if slim is None else describe_network(slim),
        "versions": versions(*_PACKAGES),
        "session": session(request, command)
        | {
            "seconds": run.seconds,
            "evaluator_seconds": run.evaluator_seconds,
            "store_seconds": run.store_seconds,
            "states_replayed": run.replayed,
            "states_measured": run.measured,
            "states_looked_up": run.looked_up,
        },
    }


def doubts(original: Network, dataset: Dataset) -> list[str]:
    """What makes all figures doubtful, in words; usually nothing."""
    found = contradiction(original, dataset)
    return [] if found is None else [found]


def describe_mask(repair: Repair, original: Network, constants: FloatArray) -> dict[str, Any]:
    """The chosen mask with its space and what each dropped neuron emits, a record.

    Args:
        constants: (n_units,), see `fairmend.tabular.networks.networks.emitted`.
    """
    units = repair.mask.units()
    return {
        "network": original.digest(),
        "space": repair.space,
        "dropped": units,
        "dropped_by_site": repair.space.by_site(repair.mask),
        "dials": describe_dials(repair, original),
        "drop": repair.drop,
        "meaning": MEANINGS[repair.drop],
        "emitted": constants[list(units)],
    }


def describe_front(repair: Repair) -> dict[str, Any]:
    """The non-dominated masks above the utility floor, by ascending unfairness, a record."""
    return {
        "caveat": SEARCH_CAVEAT,
        "figures": {"bias": repair.figures.bias.name, "utility": repair.figures.utility.name},
        "rows_per_cell": repair.settings.rows_per_cell,
        "masks": [
            {"dropped": mask.units(), "dials": mask.dials, "bias": made.bias, "utility": made.utility}
            for mask, made in repair.front
        ],
    }


def describe_measurement(measurement: Measurement, figures: Figures) -> dict[str, Any]:
    """Bias, utility and the counts behind them; the time it took is left out."""
    return {
        "bias": measurement.bias,
        "utility": measurement.utility,
        "n": measurement.n,
        "counts": dict(zip(figures.parts, measurement.parts, strict=True)),
    }


def describe_network(network: Network) -> dict[str, Any]:
    """Shape and identity of a network."""
    return {
        "digest": network.digest(),
        "features": network.n_features,
        "hidden": list(network.hidden_widths),
        "activations": [str(layer.activation) for layer in network.layers[:-1]],
        "outputs": network.n_outputs,
        "parameters": sum(layer.weight.size + layer.bias.size for layer in network.layers),
    }


def describe_dials(repair: Repair, original: Network) -> dict[str, float]:
    """What was added to the logits, by name; empty if the search kept the threshold fixed."""
    if not repair.space.dials:
        return {}
    return {dial.name: value for dial, value in zip(original.threshold_dials(), repair.mask.dials, strict=True)}


def _verdict(repair: Repair) -> str:
    if not repair.improved:
        return "nothing fairer was found at the utility that is to be kept: the network is unchanged"
    if HELD_OUT in repair.splits:
        return f"on held-out data: {verdict_on_change(repair.splits[HELD_OUT])}"
    return "not judged on held-out data"


def _protocol(repair: Repair) -> dict[str, Any]:
    settings = repair.settings
    objective = OBJECTIVES[settings.objective]
    drawn = next((comparison.before for comparison in repair.splits.values()), None)
    return {
        "objective": f"{settings.objective} ({objective.title}), fairlearn's definition over the compared groups",
        "minimised": repair.figures.bias.name,
        "utility": f"{settings.utility} over all rows, compared or not",
        "utility_kept": (
            f"at {'least' if repair.floor.better == 'higher' else 'most'} {repair.floor.limit:.6g} on the search rows"
        ),
        "drop": MEANINGS[repair.drop],
        "search_rows": (
            f"all rows of {settings.search_on}"
            if settings.rows_per_cell is None
            else f"at most {settings.rows_per_cell} rows of each group and class of {settings.search_on}, weighted"
        ),
        "choice": (
            "the least unfair mask"
            if settings.finalists == 1
            else f"of the {settings.finalists} least unfair masks the one that stays fairest around its threshold"
        )
        + f", measured on all rows of {settings.search_on}",
        "intervals": "percentile bootstrap within group and class; a change is paired person by person",
        "p_value": "permutation of group labels; the noise floor is the mean of those permutations",
        "level": None if drawn is None else drawn.value.interval.level,
        "bootstrap_draws": None if drawn is None else drawn.n_boot,
        "permutations": None if drawn is None else drawn.n_perm,
    }
