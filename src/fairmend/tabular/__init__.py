"""Tabular networks: find and drop hidden neurons so that groups are treated more equally."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fairmend.tabular.data.datasets import Dataset, make_dataset
    from fairmend.tabular.data.presets import PRESETS, load_preset
    from fairmend.tabular.data.tables import load_table
    from fairmend.tabular.estimator import NeuronRepair
    from fairmend.tabular.fairness.findings import Comparison, FairnessFigures
    from fairmend.tabular.formats.formats import read_network, write_onnx, write_safetensors
    from fairmend.tabular.formats.sklearn_networks import bake_sklearn, read_sklearn
    from fairmend.tabular.formats.torch_networks import bake_torch, read_torch
    from fairmend.tabular.networks.baking import bake, slim
    from fairmend.tabular.networks.networks import Layer, Network
    from fairmend.tabular.networks.training import train_network
    from fairmend.tabular.repair.audit import Audit
    from fairmend.tabular.repair.repair import Repair, repair_network
    from fairmend.tabular.repair.saving import load_result, open_run, save_repair
    from fairmend.tabular.repair.settings import RepairSettings

_MODULES = {
    "repair.audit": ("Audit",),
    "networks.baking": ("bake", "slim"),
    "data.datasets": ("Dataset", "make_dataset"),
    "estimator": ("NeuronRepair",),
    "fairness.findings": ("Comparison", "FairnessFigures"),
    "formats.formats": ("read_network", "write_onnx", "write_safetensors"),
    "networks.networks": ("Layer", "Network"),
    "data.presets": ("PRESETS", "load_preset"),
    "data.tables": ("load_table",),
    "repair.repair": ("Repair", "repair_network"),
    "repair.saving": ("load_result", "open_run", "save_repair"),
    "repair.settings": ("RepairSettings",),
    "formats.sklearn_networks": ("bake_sklearn", "read_sklearn"),
    "formats.torch_networks": ("bake_torch", "read_torch"),
    "networks.training": ("train_network",),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

# Functions that share their module's name (audit.audit, verdict.verdict) are not here: the module would hide them.
__all__ = [
    "PRESETS",
    "Audit",
    "Comparison",
    "Dataset",
    "FairnessFigures",
    "Layer",
    "Network",
    "NeuronRepair",
    "Repair",
    "RepairSettings",
    "bake",
    "bake_sklearn",
    "bake_torch",
    "load_preset",
    "load_result",
    "load_table",
    "make_dataset",
    "open_run",
    "read_network",
    "read_sklearn",
    "read_torch",
    "repair_network",
    "save_repair",
    "slim",
    "train_network",
    "write_onnx",
    "write_safetensors",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that the package itself is imported in no time."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
