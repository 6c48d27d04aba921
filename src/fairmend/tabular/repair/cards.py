"""The model card of a tabular repair: its figures and words, handed to `fairmend.report.card` to be laid out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fairmend.escaping import Markdown, markdown
from fairmend.report.card import Card, Section, interval, number, p_value, signed
from fairmend.report.tables import Cell, Column, Table
from fairmend.tabular.data.datasets import Dataset
from fairmend.tabular.fairness.findings import (
    Comparison,
    Estimate,
    FairnessFigures,
    figure_title,
    verdict,
    verdict_on_change,
)
from fairmend.tabular.fairness.metrics import OBJECTIVES
from fairmend.tabular.networks.activations import Activation
from fairmend.tabular.networks.networks import Network
from fairmend.tabular.repair.repair import Repair
from fairmend.tabular.repair.results import HELD_OUT, MEANINGS, describe_dials, doubts, role_of


def make_card(repair: Repair, original: Network, dataset: Dataset, *, slim: Network | None, command: str) -> Card:
    """The card of a repair; see `fairmend.tabular.repair.saving.save_repair` for the arguments."""
    order = sorted(repair.splits, key=lambda split: split in repair.settings.splits)
    order.sort(key=lambda split: split != HELD_OUT)
    return Card(
        title=f"Repaired network for {dataset.name}",
        summary=(
            *(Markdown(f"**Warning**: {markdown(doubt)}.") for doubt in doubts(original, dataset)),
            *_summary(repair, original),
        ),
        done=_done(repair, original),
        data=_data(repair, dataset),
        sections=tuple(
            Section(
                f"Figures on the {split} split",
                split_parts(repair.splits[split], role_of(split, repair), dataset.classes),
            )
            for split in order
        ),
        limits=limits(repair.splits.get(HELD_OUT), repair.improved, dataset.group_names),
        loading=_loading(repair.network),
        files=_files(slim, original),
        settings={name: str(value) for name, value in repair.settings.to_json().items() if value not in (None, {})},
        notes=(*original.notes, *dataset.notes),
        command=command,
    )


def _summary(repair: Repair, original: Network) -> tuple[str, ...]:
    if not repair.improved:
        outcome: str = Markdown(
            f"**The network is unchanged**: none of {repair.measured:,} measured masks was fairer and kept the utility "
            "that was to be kept."
        )
    else:
        moved = " and its decision threshold moved" if any(repair.mask.dials) else ""
        outcome = (
            f"A trained network of {original.n_units} hidden neurons with {repair.mask.size} of them switched "
            f"off{moved}, so that groups are treated more equally "
            f"({OBJECTIVES[repair.settings.objective].title.lower()}) at nearly the same utility. "
            "It was not retrained, and it needs no group membership to predict."
        )
    held_out = repair.splits.get(HELD_OUT)
    if held_out is None:
        return (outcome, "It was not measured on data that the search never saw.")
    words = f"On {held_out.before.n:,} rows that the search never saw: {verdict_on_change(held_out)}"
    return (outcome, words, f"Before the repair: {verdict(held_out.before)}")


def _done(repair: Repair, original: Network) -> tuple[str, ...]:
    settings = repair.settings
    said = [
        f"Search: {settings.search}, {repair.measured:,} masks measured on the rows of {settings.search_on}, "
        f"between {repair.space.min_drop} and {repair.space.largest} of {original.n_units} neurons dropped, "
        f"seed {settings.seed}.",
        f"Minimised: {repair.figures.bias.name}. Kept: {settings.utility} at "
        f"{'least' if repair.floor.better == 'higher' else 'most'} {repair.floor.limit:.4f} on those rows; masks on "
        f"the other side of that cost {settings.penalty:g} times the original unfairness more.",
        f"Meaning of dropped: {MEANINGS[repair.drop]}. It is written into the weights.",
    ]
    for site, positions in repair.space.by_site(repair.mask).items():
        said.append(f"Dropped in {site}: {', '.join(map(str, positions)) if positions else 'none'}.")
    for dial, value in describe_dials(repair, original).items():
        said.append(f"Added to the {dial}: {value:+.4f}.")
    if repair.run.stopped == "interrupted":
        said.append("The search was interrupted: this is the best found until then.")
    return tuple(said)


def _data(repair: Repair, dataset: Dataset) -> tuple[str, ...]:
    sizes = ", ".join(f"{split} {len(rows):,}" for split, rows in dataset.splits.items())
    outside = len(dataset.X) - int(dataset.group_counts(*dataset.splits).sum())
    said = [
        f"{dataset.name}: {len(dataset.X):,} rows ({sizes}), {dataset.n_features} features, "
        f"classes {', '.join(dataset.classes)}"
        + ("." if dataset.positive is None else f", of which {dataset.positive} is the positive one."),
        f"Compared groups: {', '.join(dataset.group_names)}"
        + (f"; {outside:,} rows are in none of them and count for utility only." if outside else "."),
    ]
    if dataset.source:
        said.append(f"Source: {dataset.source}.")
    said.append(f"Licence of the data: {dataset.licence or 'not stated'}.")
    return tuple(said)


def split_parts(comparison: Comparison, role: str, classes: Sequence[str]) -> tuple[str | Table, ...]:
    """The figures of a split before and after a repair, and those of its groups.

    Args:
        comparison: the figures.
        role: whether the search saw the split, in words.
        classes: names of the classes.
    """
    before, after = comparison.before, comparison.after
    figures = [_figure(figure_title(name), *figure) for name, figure in comparison.figures().items()]
    columns = (
        Column("figure", "figure"),
        Column("before", "before", number, undefined="not defined"),
        Column("after", "after", number, undefined="not defined"),
        Column("change", "change", signed, undefined="not defined"),
        Column("interval", f"{before.value.interval.level:.0%} interval of the change"),
    )
    return (
        f"{before.n:,} rows; {role}.",
        Table("Before and after", columns, tuple(figures)),
        f"A model without any group difference would show {number(chance(after))} on as many people by chance. "
        f"Permutation test of no group difference: {p_value(before.p_value)} before, {p_value(after.p_value)} after.",
        Table("Groups, before → after", _GROUP_COLUMNS, tuple(_groups(comparison, classes))),
    )


def chance(figures: FairnessFigures) -> float:
    """What a network without any group difference would show, in the direction of the figure."""
    return figures.floor if OBJECTIVES[figures.objective].better == "lower" else 1 - figures.floor


def _figure(name: str, before: Estimate, after: Estimate, change: Estimate) -> dict[str, Cell]:
    return {
        "figure": f"{name} ({change.better} is better)",
        "before": before.value,
        "after": after.value,
        "change": change.value,
        "interval": interval(change.interval.low, change.interval.high),
    }


_GROUP_COLUMNS = (
    Column("group", "group"),
    Column("judged", "positive class"),
    Column("n", "people", "{:,}".format),
    Column("positives", "positives", "{:,}".format),
    Column("true_positive_rates", "true positive rate"),
    Column("false_positive_rates", "false positive rate"),
)


def _groups(comparison: Comparison, classes: Sequence[str]) -> Iterator[dict[str, Cell]]:
    for old, new in zip(comparison.before.groups, comparison.after.groups, strict=True):
        yield {
            "group": old.group,
            "judged": classes[old.judged_class],
            "n": old.n,
            "positives": old.positives,
            "true_positive_rates": f"{number(old.true_positive_rate)} → {number(new.true_positive_rate)}",
            "false_positive_rates": f"{number(old.false_positive_rate)} → {number(new.false_positive_rate)}",
        }


def limits(held_out: Comparison | None, improved: bool, group_names: Sequence[str]) -> tuple[str, ...]:
    """What the figures do not show."""
    groups = ", ".join(group_names)
    said = [
        "One figure does not settle fairness: other definitions, other groups and intersections of groups were not "
        f"looked at. The groups compared are {groups}.",
        "The figures are of this data set. Other people, places or years may give others: measure there before use.",
        "fairmend cannot know which rows the network was trained on. If it was trained on the held-out rows, the "
        "figures there are too good.",
        "Figures on rows that the search saw overstate the gain. Judge by the held-out ones and their intervals.",
        "Why the network treated the groups differently is not shown, nor whether the labels themselves are fair.",
    ]
    if held_out is not None and not held_out.before.is_significant:
        said.insert(0, "The original network's difference could not be told from chance at this number of rows.")
    if held_out is not None and improved and held_out.change.interval.contains(0.0):
        said.insert(0, "The change on held-out data could not be told from no change at this number of rows.")
    return tuple(said)


def _loading(network: Network) -> tuple[tuple[str, str, str], ...]:
    parts = []
    for index, layer in enumerate(network.layers, start=1):
        parts.append(f"    layer{index}=torch.nn.Linear({layer.n_in}, {layer.n_out}),")
        if index < len(network.layers):
            parts.append(f"    activation{index}=torch.nn.{_torch_activation(layer.activation)},")
    single = network.n_outputs == 1
    torch_classes = "(logits[:, 0] > 0).long()" if single else "logits.argmax(dim=1)"
    numpy_classes = "(logits[:, 0] > 0).astype(int)" if single else "logits.argmax(axis=1)"
    chain = "\n".join(parts)
    torch_code = f"""\
from collections import OrderedDict

import torch
from safetensors.torch import load_file

network = torch.nn.Sequential(OrderedDict(
{chain}
))
network.load_state_dict(load_file("network.safetensors"))
with torch.no_grad():
    logits = network(torch.as_tensor(X, dtype=torch.float32))
classes = {torch_classes}
"""
    onnx_code = f"""\
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("network.onnx")
(logits,) = session.run(["logits"], {{"X": np.asarray(X, dtype=np.float32)}})
classes = {numpy_classes}
"""
    own_code = """\
from fairmend.tabular import read_network

classes = read_network("network.safetensors").predict(X)
"""
    return (
        (Markdown("`X` holds rows encoded as the network was trained. With PyTorch"), "python", torch_code),
        ("With ONNX Runtime, without PyTorch or fairmend", "python", onnx_code),
        ("With fairmend", "python", own_code),
    )


def _torch_activation(activation: Activation) -> str:
    given, options = activation.torch_arguments()
    arguments = [*map(repr, given), *(f'{name}="{value}"' for name, value in options.items())]
    return f"{activation.kind.torch}({', '.join(arguments)})"


def _files(slim: Network | None, original: Network) -> dict[str, str]:
    shape = "-".join(map(str, original.hidden_widths))
    files = {
        "network.safetensors, network.onnx": f"the repaired network in its original shape ({shape} hidden neurons)",
        "mask.json": "which neurons were dropped, and what they emit instead",
        "result.json": "all figures, settings, seeds, versions and fingerprints",
        "front.json": "the other trade-offs between unfairness and utility that the search found",
        "run.sqlite": "every measured mask; lets the run be gone on with",
        "original.safetensors": "the network as it was",
    }
    if slim is not None:
        smaller = "-".join(map(str, slim.hidden_widths))
        files["slim.safetensors, slim.onnx"] = f"the same without the dropped neurons ({smaller} hidden neurons)"
    return files
