"""Reproduce the published table: NeuFair's figures beside ours, on whichever published networks are at hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fairmend.artifacts import file_digest
from fairmend.errors import ArtifactError, DataError, InputError
from fairmend.files import parse_json
from fairmend.tabular.data.datasets import Dataset
from fairmend.tabular.data.presets import find_preset, load_preset
from fairmend.tabular.data.sources import locate
from fairmend.tabular.formats.formats import read_network
from fairmend.tabular.names import THRESHOLDS, Threshold
from fairmend.tabular.networks.networks import Network
from fairmend.tabular.repair.settings import RepairSettings
from fairmend.tabular.studies.outcomes import THRESHOLD_ONLY
from fairmend.tabular.studies.reproduction import LEFT_OUT, PUBLISHED, Reproduction, summarise_settings
from fairmend.tabular.studies.trials import Session, Subject, Trial, run_trials

MODELS = "models.json"


@dataclass(frozen=True)
class PublishedNetwork:
    """One published network and the files that it and its data come from.

    Attributes:
        setting: the preset's name.
        seed: of its training and its split.
        model: its .safetensors file.
        table: the file of its raw table.
    """

    setting: str
    seed: int
    model: Path
    table: Path

    @property
    def name(self) -> str:
        """What it is called in the study."""
        return f"{self.setting} {self.seed}"

    def identity(self) -> Mapping[str, Any]:
        """Digests of both files, with what decides how they are read."""
        return {
            "setting": self.setting,
            "seed": self.seed,
            "model": file_digest(self.model),
            "table": file_digest(self.table),
        }

    def load(self) -> tuple[Network, Dataset]:
        """Read both; the data is split by the network's own seed, so that its test rows are new to it."""
        return read_network(self.model), load_preset(self.setting, self.table, self.seed)


def reproduce_published(
    networks: Path,
    data: Path | None = None,
    settings: RepairSettings | None = None,
    *,
    thresholds: Sequence[Threshold] = ("joint",),
    only: Sequence[str] = (),
    session: Session | None = None,
) -> Reproduction:
    """Repair the published networks and put the means beside the published ones.

    Args:
        networks: a folder with models.json, a list of {"dataset", "seed", "file"}, and the .safetensors files that it
            names.
        data: a folder that holds the raw tables, itself or in its subfolder tabular; None takes cache and network.
        settings: how to repair, the same for all networks; without `max_drop`, each setting has its published limits.
        thresholds: "joint", "fixed" (as published), or both.
        only: names of settings; all seven if empty.
        session: how to run it, and where the results are kept so that it can be gone on with.

    Raises:
        InputError: a folder without a readable models.json, an unknown setting, an objective that was not published,
            or nothing that can be repaired.
        RunError: the directory belongs to something else, or cannot be written.
    """
    settings = settings or RepairSettings()
    _require(settings, thresholds, only)
    names = tuple(only) or tuple(PUBLISHED)
    found, missing = find_networks(networks, data, names)
    if not found:
        raise InputError(
            "there is no published network to repair: " + "; ".join(f"{name}: {why}" for name, why in missing.items())
        )
    subjects: dict[str, Subject] = {network.name: network for network in found}
    trials = [
        Trial(f"{network.name}, {threshold}", network.name, _published_limits(settings, threshold, network.setting))
        for network in found
        for threshold in thresholds
    ]
    trials += [
        Trial(f"{network.name}, {THRESHOLD_ONLY}", network.name, rival_settings(settings), rival=True)
        for network in found
    ]
    finished = run_trials(Reproduction.kind, trials, subjects, session, several=True)
    rows = summarise_settings(names, thresholds, tuple(finished.results.values()))
    return Reproduction(settings, finished, rows, missing)


def _published_limits(settings: RepairSettings, threshold: Threshold, setting: str) -> RepairSettings:
    """The size limits of the published runs, unless others are asked for."""
    settings = replace(settings, threshold=threshold)
    if settings.max_drop != "auto":
        return settings
    preset = find_preset(setting)
    return replace(settings, min_drop=settings.min_drop or preset.min_drop, max_drop=preset.max_drop)


def rival_settings(settings: RepairSettings) -> RepairSettings:
    """Settings reduced to what matters to shifting the threshold, so that other searches share one record of it."""
    kept = ("objective", "utility", "keep", "penalty", "search_on", "seed")
    return RepairSettings(**{name: getattr(settings, name) for name in kept})


def find_networks(
    networks: Path, data: Path | None, settings: Sequence[str]
) -> tuple[list[PublishedNetwork], dict[str, str]]:
    """Find the networks and tables of the named settings, and say why a setting is missing.

    Raises:
        InputError: no readable models.json, or a file that it names is not there.
    """
    listed = list(_listed(networks))
    found: list[PublishedNetwork] = []
    missing: dict[str, str] = {}
    for setting in settings:
        table = find_preset(setting).table
        own = [entry for entry in listed if entry[0] == table.name]
        if not own:
            missing[setting] = f"{networks / MODELS} lists no network of the data set {table.name!r}"
            continue
        try:
            path = _table(setting, data)
        except (ArtifactError, DataError) as error:
            missing[setting] = str(error)
            continue
        found += [PublishedNetwork(setting, seed, model, path) for _, seed, model in own]
    return found, missing


def _listed(folder: Path) -> Iterator[tuple[str, int, Path]]:
    """(data set, seed, file) of every network behind the published means."""
    path = folder / MODELS
    wanted = '[{"dataset": "adult", "seed": 42, "file": "models/adult-42.safetensors"}, ...]'
    try:
        entries = parse_json(path.read_bytes())
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror or error}): give the folder that holds {MODELS}, a list {wanted}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON ({error}): it must hold a list {wanted}") from error
    for entry in entries if isinstance(entries, list) else [entries]:
        if not isinstance(entry, dict) or not {"dataset", "seed", "file"} <= entry.keys():
            raise InputError(f"{path} has the entry {str(entry)[:200]}: it must hold a list {wanted}")
        dataset, seed, file = str(entry["dataset"]), entry["seed"], folder / str(entry["file"])
        if type(seed) is not int or not _is_inside(folder, file):
            raise InputError(
                f"{path} names the network {entry['file']!r} with seed {seed!r}: the seed must be a whole number and "
                "the file must be in the folder"
            )
        if seed not in LEFT_OUT.get(dataset, ()):
            yield dataset, seed, file


def _is_inside(folder: Path, file: Path) -> bool:
    """Whether there is such a file, below the folder also when links are followed."""
    try:
        return file.is_file() and file.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError):  # a name that no file can have
        return False


def _table(setting: str, data: Path | None) -> Path:
    """The raw table's file, from the folder, its subfolder tabular, or the cache."""
    table = find_preset(setting).table
    if data is not None and (data / "tabular").is_dir() and not any((data / name).is_file() for name in table.names):
        data = data / "tabular"
    return locate(table, data)[0]


def _require(settings: RepairSettings, thresholds: Sequence[Threshold], only: Sequence[str]) -> None:
    if settings.objective != "equalized_odds_difference":
        raise InputError(
            f"published are figures of equalized_odds_difference, not of {settings.objective}: use compare for others"
        )
    unknown = [name for name in only if name not in PUBLISHED]
    if unknown:
        raise InputError(f"there is no published setting {unknown[0]!r}: published are {', '.join(PUBLISHED)}")
    if not thresholds or len(set(thresholds)) < len(thresholds) or not set(thresholds) <= set(THRESHOLDS):
        raise InputError(f"thresholds must be joint, fixed or both, got {list(thresholds)}")
