"""The directory of a run: opened before the search, filled with the repaired network and its figures after it.

`run.sqlite` and `original.safetensors` are there from the start, so that a killed run can be gone on with. Every
other file is written whole or not at all, and `result.json` last: a directory that has it is complete.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import fairmend
from fairmend.errors import RunError
from fairmend.escaping import encoded
from fairmend.files import make_folder, write_atomically
from fairmend.records import document, read
from fairmend.report.card import render_card
from fairmend.runs.directories import RUN, open_directory
from fairmend.runs.store import Store
from fairmend.tabular.data.datasets import Dataset
from fairmend.tabular.formats.formats import read_network, write_onnx, write_safetensors
from fairmend.tabular.networks.baking import slim as slimmed
from fairmend.tabular.networks.chains import disagreement
from fairmend.tabular.networks.networks import Network
from fairmend.tabular.repair.cards import make_card
from fairmend.tabular.repair.repair import Repair, emitted_on
from fairmend.tabular.repair.results import FRONT, MASK, REPAIR, describe_front, describe_mask, describe_result
from fairmend.tabular.repair.settings import RepairSettings

ORIGINAL = "original.safetensors"
_COMPARED = 256  # rows on which a saved network is compared with what was measured
_ROUNDING = 1e-3  # of the largest output: baked biases are float32, and features may be far from 1
_IDENTITY = ("kind", "settings", "network", "dataset")


def open_run(
    out: Path, *, network: Network, dataset: Dataset, settings: RepairSettings, request: Mapping[str, Any]
) -> Store:
    """Start a run in a directory, or open the same run there to go on with it.

    Args:
        out: the directory; made if it does not exist.
        network, dataset, settings: what is repaired, on what and how; a run with others is another run.
        request: JSON-ready: how network and data were named by the person who asked, so that it can be resumed.

    Raises:
        RunError: the directory holds another run (what differs is named) or other files, is not a directory, or cannot
            be written; nothing is left behind then.
    """
    header = {
        "kind": REPAIR.name,
        "fairmend": fairmend.__version__,
        "settings": settings.to_json(),
        "network": network.digest(),
        "dataset": dataset.fingerprint(),
        "request": dict(request),
    }

    def keep_original() -> None:
        write_safetensors(network, out / ORIGINAL)

    return open_directory(out, header, identity=_IDENTITY, results=(ORIGINAL,), furnish=keep_original)


def save_repair(
    repair: Repair,
    original: Network,
    dataset: Dataset,
    out: Path,
    *,
    request: Mapping[str, Any],
    slim: bool = False,
    command: str = "",
) -> dict[str, Path]:
    """Write the repaired network, its mask, all figures and a model card into a directory.

    Args:
        repair: what to save, judged on its splits.
        original: the network as it was.
        dataset: what it was repaired on.
        out: the directory, made if it does not exist.
        request: see `open_run`.
        slim: also write the network without the dropped neurons.
        command: the command line, for the record.

    Returns:
        The files by name; docs/reference/files-tabular.md describes them.

    Raises:
        RunError: a file cannot be written, or a network's file reads back as another network than the one that was
            measured. Every file is the old one or the new one, never a part.
    """
    make_folder(out)
    constants = emitted_on(original, repair.drop, dataset, repair.settings)
    small = slimmed(original, repair.mask, constants) if slim else None
    metadata = {"fairmend": fairmend.__version__, "original": original.digest()}
    networks = {"network": repair.network} | ({} if small is None else {"slim": small})
    files = {}
    for name, network in networks.items():
        files[name] = out / f"{name}.safetensors"
        files[f"{name}_onnx"] = out / f"{name}.onnx"
        write_safetensors(network, files[name], metadata)
        write_onnx(network, files[f"{name}_onnx"])
        _require_measured(files[name], repair, original, constants, dataset.X, is_slim=name == "slim")
    result = describe_result(repair, original, dataset, request=request, slim=small, command=command)
    contents = {
        "mask": (MASK.file, document(describe_mask(repair, original, constants), MASK)),
        "front": (FRONT.file, document(describe_front(repair), FRONT)),
        "card": ("README.md", encoded(render_card(make_card(repair, original, dataset, slim=small, command=command)))),
        "result": (REPAIR.file, document(result, REPAIR)),
    }
    for name, (file, content) in contents.items():
        files[name] = out / file
        write_atomically(files[name], content)
    return files | {name: out / file for name, file in (("run", RUN), ("original", ORIGINAL)) if (out / file).is_file()}


def _require_measured(
    file: Path,
    repair: Repair,
    original: Network,
    constants: npt.NDArray[np.float64],
    X: npt.NDArray[np.float32],
    *,
    is_slim: bool,
) -> None:
    """Read a network's file and compare it with the original under the mask, which is what was measured.

    The .onnx file beside it has the same weights, bit for bit: see `write_onnx`.

    Raises:
        RunError: the dropped neurons are not silent in it, or its outputs on real rows are others.
    """
    found = read_network(file)
    rows = X[:: max(1, len(X) // _COMPARED)][:_COMPARED]
    detail = disagreement(original.logits(rows, repair.mask, constants), found.logits(rows), _ROUNDING)
    dropped = original.dropped(repair.mask)
    if is_slim:
        expected = tuple(max(1, int(len(units) - units.sum())) for units in dropped)
        if found.hidden_widths != expected:
            detail = f"its layers have {found.hidden_widths} neurons instead of {expected}"
    else:
        for index, units in enumerate(dropped):
            silenced = found.layers[index].weight[units], found.layers[index + 1].weight[:, units]
            if silenced[0 if repair.drop == "weights" else 1].any():
                detail = f"dropped neurons of {found.space().sites[index].name} are not silent"
    if detail:
        raise RunError(
            f"{file} was written, but read back it is not the network that was measured: {detail}. Do not use it"
        )


def load_result(out: Path) -> dict[str, Any]:
    """Read the figures of a saved repair, as docs/reference/files-tabular.md describes them.

    Raises:
        RunError: no finished repair is there, or its file is damaged or of another schema version.
    """
    return read(out / REPAIR.file, REPAIR)
