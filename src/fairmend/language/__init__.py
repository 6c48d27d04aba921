"""The language wing: attention heads of a causal language model, measured, ranked and switched off."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fairmend.language.estimator import HeadRepair
    from fairmend.language.heads.folding import fold
    from fairmend.language.heads.gates import HeadGates, masked
    from fairmend.language.heads.heads import HeadMap, find_heads
    from fairmend.language.heads.slicing import slice_groups
    from fairmend.language.measurement.evaluator import LanguageEvaluator
    from fairmend.language.models.models import LanguageModel, load_model, wrap_model
    from fairmend.language.models.writing import save_model
    from fairmend.language.prompts.prompts import PromptSet, prompt_set
    from fairmend.language.protocols import Sampling
    from fairmend.language.records.front_files import load_front
    from fairmend.language.records.picking import save_point
    from fairmend.language.records.run_directories import open_run
    from fairmend.language.records.saving import load_result, read_mask, save_repair
    from fairmend.language.repair.objectives import Objective, load_objective
    from fairmend.language.repair.repair import Repair, repair_model
    from fairmend.language.repair.settings import RepairSettings
    from fairmend.language.scores.head_scores import HeadScores, score_heads
    from fairmend.language.studies.compare import ComparisonSettings, compare_methods
    from fairmend.language.studies.sweep import SweepSettings, sweep_subsets
    from fairmend.language.toxicity.catalogue import load_scorer
    from fairmend.language.toxicity.scorer import Scorer

_MODULES = {
    "studies.compare": ("ComparisonSettings", "compare_methods"),
    "measurement.evaluator": ("LanguageEvaluator",),
    "heads.folding": ("fold",),
    "records.front_files": ("load_front",),
    "heads.gates": ("HeadGates", "masked"),
    "estimator": ("HeadRepair",),
    "scores.head_scores": ("HeadScores", "score_heads"),
    "heads.heads": ("HeadMap", "find_heads"),
    "models.models": ("LanguageModel", "load_model", "wrap_model"),
    "models.writing": ("save_model",),
    "repair.objectives": ("Objective", "load_objective"),
    "records.picking": ("save_point",),
    "prompts.prompts": ("PromptSet", "prompt_set"),
    "repair.repair": ("Repair", "repair_model"),
    "records.run_directories": ("open_run",),
    "protocols": ("Sampling",),
    "records.saving": ("load_result", "read_mask", "save_repair"),
    "repair.settings": ("RepairSettings",),
    "heads.slicing": ("slice_groups",),
    "studies.sweep": ("SweepSettings", "sweep_subsets"),
    "toxicity.scorer": ("Scorer",),
    "toxicity.catalogue": ("load_scorer",),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

# Functions that share their module's name (perplexity.perplexity, bias.bias) are not here: the module would hide them.
__all__ = [
    "ComparisonSettings",
    "HeadGates",
    "HeadMap",
    "HeadRepair",
    "HeadScores",
    "LanguageEvaluator",
    "LanguageModel",
    "Objective",
    "PromptSet",
    "Repair",
    "RepairSettings",
    "Sampling",
    "Scorer",
    "SweepSettings",
    "compare_methods",
    "find_heads",
    "fold",
    "load_front",
    "load_model",
    "load_objective",
    "load_result",
    "load_scorer",
    "masked",
    "open_run",
    "prompt_set",
    "read_mask",
    "repair_model",
    "save_model",
    "save_point",
    "save_repair",
    "score_heads",
    "slice_groups",
    "sweep_subsets",
    "wrap_model",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that the package itself is imported in no time."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
