"""From options to a network and a data set, and back again when a run is resumed."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairmend import __version__
from fairmend.cli.display import Screen
from fairmend.cli.options import Given
from fairmend.cli.tabular.options import SourceOptions
from fairmend.cli.trust import require_paths, stored
from fairmend.errors import DataError, FairmendError, InputError, RunError

if TYPE_CHECKING:
    import pandas as pd

    from fairmend.tabular.data.datasets import Dataset
    from fairmend.tabular.data.presets import Preset
    from fairmend.tabular.networks.networks import Network
    from fairmend.tabular.networks.training import StopOn
    from fairmend.tabular.repair.settings import RepairSettings

_OWN_TABLE = ("label", "sensitive", "positive", "split_column", "features", "drop_sensitive", "encode")
_PATHS = ("model", "data")


@dataclass(frozen=True)
class Inputs:
    """A network and the data that it is to be judged and repaired on.

    Attributes:
        title: a short name: the preset's, or the data file's without its endings.
        request: the options that lead here, JSON-ready, with absolute paths; `source_of` reads it back.
        notes: what a person should be told about how network and data were read.
        warnings: what a person must be told, see `fairmend.tabular.repair.audit.contradiction`.
    """

    title: str
    network: Network
    dataset: Dataset
    request: dict[str, Any]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def open_inputs(source: SourceOptions, screen: Screen, objective: str) -> Inputs:
    """Read (or fetch, or train) what the options name, make sure that it fits together, and say what is notable.

    Raises:
        InputError: options that contradict each other or name nothing, a network or table that cannot be used,
            that do not fit each other, or groups without the people that the objective needs.
        ArtifactError: data that cannot be fetched.
    """
    _require_consistent(source)
    from fairmend.tabular.data.datasets import arranged, require_people
    from fairmend.tabular.repair.audit import contradiction
    from fairmend.tabular.repair.repair import require_fit

    dataset = _own_data(source) if source.preset is None else _preset_data(source, screen)
    notes: tuple[str, ...] = ()
    if source.model is not None:
        from fairmend.tabular.formats.formats import read_network

        network = read_network(source.model, source.activation)
        dataset = arranged(dataset, network.classes)
    else:
        network, notes = _preset_network(source, dataset, screen)
    notes = (*notes, *network.notes, *dataset.notes)
    notes = tuple(map(_as_options, notes))
    for note in notes:  # before anything is refused: a column that was left out may be why
        screen.note(f"Note: {note}")
    with _in_options():
        require_fit(network, dataset)
        require_people(dataset, objective)
    doubt = contradiction(network, dataset)
    warnings = () if doubt is None else (_as_options(doubt),)
    for warning in warnings:
        screen.warn(f"Warning: {warning}")
    return Inputs(title_of(source), network, dataset, request_of(source), notes, warnings)


def make_settings(given: Given, seed: int, preset: str | None = None, **changes: Any) -> RepairSettings:
    """Turn the options into settings, a preset's published size limits filled in.

    Args:
        given: on the command line.
        seed: of everything random.
        preset: whose limits are taken where none are given.
        changes: further settings by name.

    Raises:
        InputError: an option out of its range; a preset that does not exist.
    """
    from fairmend.tabular.repair.settings import RepairSettings

    if given.get("drop") == "clamp":
        raise InputError("--drop must be output or weights, got 'clamp': --search dice tries clamping by itself")
    search, repeats = given.get("search", "annealing"), (given.get("restarts", 1), given.get("chains", 1))
    if search not in ("annealing", "random-walk") and repeats != (1, 1):
        raise InputError(
            f"--restarts {repeats[0]} and --chains {repeats[1]} are for --search annealing and random-walk: "
            f"leave them out for {search}"
        )
    limits: dict[str, Any] = {}
    if preset is not None:
        from fairmend.tabular.data.presets import find_preset

        published = find_preset(preset)
        limits = {"min_drop": published.min_drop, "max_drop": published.max_drop}
    if search == "dice":
        limits["min_drop"] = 0  # it drops one neuron, below every published limit
    return given.onto(RepairSettings(**limits, **changes, seed=seed))


def title_of(source: SourceOptions) -> str:
    """A short name: the preset's, or the data file's without its endings."""
    path = source.data
    return source.preset or ("" if path is None else path.name.split(".")[0] or path.name)


def request_of(source: SourceOptions) -> dict[str, Any]:
    """The options as JSON, with absolute paths, so that a run can be resumed from any folder."""
    plain = asdict(source)
    return plain | {name: absolute(plain[name]) for name in _PATHS if plain[name] is not None}


def absolute(path: Path) -> str:
    """A path as it is put on record."""
    return str(path.expanduser().absolute())


def source_of(request: Mapping[str, Any]) -> SourceOptions:
    """The options that `request_of` described.

    Raises:
        RunError: something else, or a path that is not absolute.
    """
    known = {field.name for field in fields(SourceOptions)}
    if not known >= set(request):
        raise RunError(
            f"the run was asked for with the options {sorted(set(request) - known)}, which this version of fairmend "
            f"({__version__}) does not have: resume it with the version that started it"
        )
    require_paths(request, _PATHS)
    paths = {name: Path(request[name]) for name in _PATHS if request.get(name) is not None}
    return stored(lambda: SourceOptions(**{**request, **paths}))


def _require_consistent(source: SourceOptions) -> None:
    plain = SourceOptions()
    if source.preset is not None:
        extra = [name for name in _OWN_TABLE if getattr(source, name) != getattr(plain, name)]
        if extra:
            raise InputError(
                f"--preset {source.preset} brings its own columns, encoding and groups: leave out {_flags(extra)}, or "
                "leave out --preset to describe your own table"
            )
        if source.model is None and source.activation is not None:
            raise InputError(
                f"--activation {source.activation} needs --model: the network trained for --preset {source.preset} "
                "is a relu network"
            )
        return
    missing = [name for name in ("model", "data", "label", "sensitive") if getattr(source, name) is None]
    if missing:
        raise InputError(
            f"there is nothing to work on without {_flags(missing)}: give --preset NAME, or all of --model FILE "
            "--data FILE --label COLUMN --sensitive COLUMN"
        )


def _flags(names: list[str]) -> str:
    return ", ".join("--" + name.replace("_", "-") for name in names)


def _preset_data(source: SourceOptions, screen: Screen) -> Dataset:
    from fairmend.tabular.data.presets import load_preset

    assert source.preset is not None
    try:
        return load_preset(source.preset, source.data, source.split_seed, screen.steps.download)
    finally:
        screen.steps.close()


def _own_data(source: SourceOptions) -> Dataset:
    from fairmend.tabular.data.datasets import make_dataset
    from fairmend.tabular.data.tables import load_table, release_memory

    assert source.data is not None
    assert source.label is not None
    assert source.sensitive is not None
    if source.encode not in ("none", "standard"):
        raise InputError(f"--encode must be none or standard, got {source.encode!r}")
    with _in_options():
        frame = load_table(source.data)
        dataset = make_dataset(
            frame,
            source.label,
            _columns(source.sensitive, frame, "--sensitive"),
            positive=source.positive,
            encode="standard" if source.encode == "standard" else "none",
            features=None if source.features is None else _columns(source.features, frame, "--features"),
            drop_sensitive=source.drop_sensitive,
            split_seed=source.split_seed,
            split_column=source.split_column,
            name=title_of(source),
            source=source.data.name,
        )
    del frame
    release_memory()
    return dataset


def _columns(text: str, frame: pd.DataFrame, option: str) -> list[str]:
    """The columns that a text names: one of exactly this name, or a list as CSV has it, commas in names in quotes.

    Raises:
        InputError: a quote that is not closed.
    """
    if text in frame.columns or text in frame.index.names:
        return [text]
    try:
        (fields,) = csv.reader([text], skipinitialspace=True, strict=True)
    except (csv.Error, ValueError) as error:
        raise InputError(
            f"{option} {text!r} is no list of columns ({error}): separate names by commas, and put a name with a comma "
            "in double quotes, as CSV does: '\"name, of one\",other'"
        ) from None
    return [field.strip() for field in fields if field.strip()]


# How messages of the library name an argument, and what it is called here.
_OPTIONS = {
    "positive=...": "--positive VALUE",
    "features=...": "--features",
    "drop_sensitive=True": "--drop-sensitive",
    'encode="standard"': "--encode standard",
    "name it in features": "name it in --features",
}


def _as_options(message: str) -> str:
    for argument, option in _OPTIONS.items():
        message = message.replace(argument, option)
    return message


@contextmanager
def _in_options() -> Iterator[None]:
    """Let messages about the arguments of the library name the options of the command line."""
    try:
        yield
    except DataError as error:
        raise DataError(_as_options(str(error))) from error


def _preset_network(source: SourceOptions, dataset: Dataset, screen: Screen) -> tuple[Network, tuple[str, ...]]:
    """The network of a preset's published widths, trained here or taken from the cache."""
    from fairmend.artifacts import cache_directory
    from fairmend.tabular.data.presets import find_preset
    from fairmend.tabular.formats.formats import read_network, write_safetensors

    assert source.preset is not None
    preset = find_preset(source.preset)
    file = cache_directory() / "networks" / f"{preset.name}-{_key(preset, dataset, source.split_seed)}.safetensors"
    widths = "-".join(map(str, preset.hidden))
    what = f"a network of {widths} neurons trained on the train split (seed {source.split_seed})"
    if file.is_file():
        try:
            network = read_network(file)
        except FairmendError:
            screen.note(f"Note: {file} is damaged and is trained anew.")
        else:
            return network, (f"no --model was given: {what}, from {file}",)
    network = _train(preset, dataset, source.split_seed, screen)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_safetensors(network, file, {"preset": preset.name, "fairmend": __version__})
    except (OSError, RunError) as error:
        return network, (f"no --model was given: {what}; it could not be kept in the cache ({error})",)
    return network, (f"no --model was given: {what}, kept at {file}",)


def _key(preset: Preset, dataset: Dataset, seed: int) -> str:
    """What a trained network depends on, in 16 digits."""
    identity = [dataset.fingerprint(), preset.hidden, seed, _batch_size(dataset), _stop_on(dataset), __version__]
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def _batch_size(dataset: Dataset) -> int:
    """About 64 steps per epoch on a small table: with few large batches it is still untrained when training ends."""
    return min(256, max(16, len(dataset.rows("train")) // 64))


def _stop_on(dataset: Dataset) -> StopOn:
    """F1, unless most people are positive: then predicting everybody positive has an F1 that training rarely beats."""
    return "f1" if dataset.subset("train")[1].mean() < 0.5 else "log_loss"


def _train(preset: Preset, dataset: Dataset, seed: int, screen: Screen) -> Network:
    from fairmend.tabular.formats.safetensors_networks import parse_safetensors, serialize_safetensors
    from fairmend.tabular.formats.torch_networks import read_torch
    from fairmend.tabular.networks.training import train_network

    try:
        module = train_network(
            *dataset.subset("train")[:2],
            hidden=preset.hidden,
            seed=seed,
            batch_size=_batch_size(dataset),
            validation=dataset.subset("validation")[:2],
            stop_on=_stop_on(dataset),
            progress=screen.steps.training,
        )
    finally:
        screen.steps.close()
    # By way of the file format, so that it is the same network, layer names included, as the one read from the cache.
    return parse_safetensors(serialize_safetensors(read_torch(module), {}))
