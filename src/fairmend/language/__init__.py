"""The language wing: attention heads of a causal language model, measured, ranked and switched off."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fairmend.language.compare import ComparisonSettings, compare_methods
    from fairmend.language.evaluator import LanguageEvaluator
    from fairmend.language.folding import fold
    from fairmend.language.front_files import load_front
    from fairmend.language.gates import HeadGates, masked
    from fairmend.language.head_repair import HeadRepair
    from fairmend.language.head_scores import HeadScores, score_heads
    from fairmend.language.heads import HeadMap, find_heads
    from fairmend.language.models import LanguageModel, load_model, save_model, wrap_model
    from fairmend.language.objectives import Objective, load_objective
    from fairmend.language.picking import save_point
    from fairmend.language.prompts import PromptSet, prompt_set
    from fairmend.language.repair import Repair, repair_model
    from fairmend.language.run_directories import open_run
    from fairmend.language.samples import Sampling
    from fairmend.language.saving import load_result, read_mask, save_repair
    from fairmend.language.settings import RepairSettings
    from fairmend.language.slicing import slice_groups
    from fairmend.language.sweep import SweepSettings, sweep_subsets
    from fairmend.language.toxicity import Scorer, load_scorer

_MODULES = {
    "compare": ("ComparisonSettings", "compare_methods"),
    "evaluator": ("LanguageEvaluator",),
    "folding": ("fold",),
    "front_files": ("load_front",),
    "gates": ("HeadGates", "masked"),
    "head_repair": ("HeadRepair",),
    "head_scores": ("HeadScores", "score_heads"),
    "heads": ("HeadMap", "find_heads"),
    "models": ("LanguageModel", "load_model", "save_model", "wrap_model"),
    "objectives": ("Objective", "load_objective"),
    "picking": ("save_point",),
    "prompts": ("PromptSet", "prompt_set"),
    "repair": ("Repair", "repair_model"),
    "run_directories": ("open_run",),
    "samples": ("Sampling",),
    "saving": ("load_result", "read_mask", "save_repair"),
    "settings": ("RepairSettings",),
    "slicing": ("slice_groups",),
    "sweep": ("SweepSettings", "sweep_subsets"),
    "toxicity": ("Scorer", "load_scorer"),
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
