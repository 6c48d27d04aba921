"""The saved directory: networks that predict alike in every runtime, figures as strict JSON, and whose run it is."""

import errno
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from fairmend.errors import RunError
from fairmend.masks import Space
from fairmend.records import built
from fairmend.runs.store import Store
from fairmend.tabular.data.datasets import Dataset
from fairmend.tabular.fairness.findings import Comparison
from fairmend.tabular.formats.formats import read_network
from fairmend.tabular.networks.activations import Activation
from fairmend.tabular.networks.baking import bake
from fairmend.tabular.networks.baking import slim as slim_network
from fairmend.tabular.networks.networks import Layer, Network, decide, emitted
from fairmend.tabular.repair.repair import Repair, repair_network
from fairmend.tabular.repair.saving import load_result, open_run, save_repair
from fairmend.tabular.repair.settings import RepairSettings

REQUEST = {"data": "people.csv", "split_seed": 42}
FILES = {
    "network.safetensors",
    "network.onnx",
    "original.safetensors",
    "mask.json",
    "front.json",
    "result.json",
    "run.sqlite",
    "README.md",
}


def make_dataset(n_classes: int = 2, n: int = 600) -> Dataset:
    rng = np.random.default_rng(0)
    groups = rng.integers(-1, 2, n)
    X = rng.normal(size=(n, 4)).astype(np.float32)
    X[:, 0] = groups
    score = X[:, 1] + 0.7 * groups + 0.5 * rng.normal(size=n)
    return Dataset(
        name="people",
        X=X,
        y=np.digitize(score, np.quantile(score, np.arange(1, n_classes) / n_classes)).astype(np.int64),
        classes=tuple(f"class {label}" for label in range(n_classes)),
        groups=groups,
        group_names=("sex=F", "sex=M"),
        feature_names=("sex", "a", "b", "c"),
        splits={
            "train": np.arange(300),
            "validation": np.arange(300, 450),
            "test": np.arange(450, n),
        },
        source="made for the tests",
        licence="CC0",
        notes=("group sex=F is small",),
    )


def make_network(n_outputs: int = 1, activations: tuple[str, str] = ("relu", "tanh")) -> Network:
    rng = np.random.default_rng(1)
    widths, layers = (4, 7, 5, n_outputs), []
    for index, activation in enumerate((*activations, "identity")):
        weight = rng.normal(size=(widths[index + 1], widths[index])) * 0.8
        slope = {"leaky_relu": 0.2, "elu": 0.5}.get(activation, 0.0)
        layers.append(Layer(weight, rng.normal(size=widths[index + 1]) * 0.2, Activation(activation, slope)))
    return Network(tuple(layers), notes=("relu is assumed",))


@dataclass(frozen=True)
class Saved:
    """A repair and where it was saved."""

    network: Network
    dataset: Dataset
    repair: Repair
    out: Path
    files: dict[str, Path]


Save = Callable[..., Saved]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Repair a made network and save it in a new directory."""

    def saved(network: Network | None = None, out: str = "out", slim: bool = True, **options: Any) -> Saved:
        network = network or make_network()
        dataset = make_dataset(network.n_classes)
        settings = RepairSettings(**{"states": 150, "keep": 0.9, **options})
        folder = tmp_path / out
        with open_run(folder, network=network, dataset=dataset, settings=settings, request=REQUEST) as store:
            repair = repair_network(network, dataset, settings, store=store)
        files = save_repair(repair, network, dataset, folder, request=REQUEST, slim=slim, command="fairmend ...")
        return Saved(network, dataset, repair, folder, files)

    return saved


def strictly(file: Path) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{file} holds {constant}, which JSON does not have")

    return json.loads(file.read_bytes(), parse_constant=refuse)


def run_onnx(file: Path, X: np.ndarray) -> np.ndarray:
    (logits,) = onnxruntime.InferenceSession(file).run(["logits"], {"X": X})
    return decide(np.asarray(logits))


def sure_rows(logits: np.ndarray) -> np.ndarray:
    """Rows whose decision does not hang on the last bits of float32."""
    if logits.shape[1] == 1:
        return np.abs(logits[:, 0]) > 1e-5
    best = np.sort(logits, axis=1)
    return best[:, -1] - best[:, -2] > 1e-5


@pytest.mark.parametrize(
    ("options", "n_outputs", "activations"),
    [
        ({}, 1, ("relu", "tanh")),
        ({"drop": "weights", "threshold": "fixed", "keep": 0.5}, 1, ("leaky_relu", "tanh")),
        ({"search": "dice"}, 1, ("gelu", "elu")),
        ({}, 3, ("silu", "gelu_tanh")),
    ],
)
def test_masked_repaired_slim_and_onnx_predict_alike(
    options: dict[str, Any], n_outputs: int, activations: tuple[str, str], save: Save
) -> None:
    saved = save(make_network(n_outputs, activations), **options)
    repair, X = saved.repair, saved.dataset.X
    assert repair.improved
    constants = emitted(saved.network, repair.drop, saved.dataset.subset("train", "validation")[0])
    masked = saved.network.logits(X, repair.mask, constants)
    sure, expected = sure_rows(masked), decide(masked)
    assert sure.mean() > 0.99
    for name in ("network", "slim"):
        assert (read_network(saved.files[name]).predict(X) == expected)[sure].all()
        assert (read_network(saved.files[f"{name}_onnx"]).predict(X) == expected)[sure].all()
        assert (run_onnx(saved.files[f"{name}_onnx"], X) == expected)[sure].all()
    kept = [width - len(gone) for width, gone in zip((7, 5), repair.space.by_site(repair.mask).values(), strict=True)]
    assert read_network(saved.files["slim"]).hidden_widths == tuple(max(1, width) for width in kept)


def test_the_mask_file_alone_gives_the_repaired_predictions(save: Save) -> None:
    saved = save()
    stored = strictly(saved.files["mask"])
    space = built(stored["space"], Space)
    mask = space.mask(stored["dropped"], list(stored["dials"].values()))
    constants = np.zeros(space.n_units)
    constants[stored["dropped"]] = stored["emitted"]
    assert mask == saved.repair.mask
    assert stored["network"] == saved.network.digest()
    np.testing.assert_allclose(
        saved.network.logits(saved.dataset.X, mask, constants),
        read_network(saved.files["network"]).logits(saved.dataset.X),
        atol=1e-5,
    )


def test_everything_is_there_and_strictly_json(save: Save) -> None:
    saved = save(slim=False)
    assert {file.name for file in saved.out.iterdir()} == FILES
    assert {file.name for file in saved.files.values()} == FILES
    result = load_result(saved.out)
    assert result == strictly(saved.files["result"])
    for split, stored in result["splits"].items():
        assert built(stored["comparison"], Comparison) == saved.repair.splits[split]
        assert stored["seen_by_search"] == (split != "test")
    assert "held out" in result["splits"]["test"]["role"]
    assert "overstate" in result["search"]["caveat"]
    assert result["search"]["before"]["bias"] == saved.repair.before.bias
    assert result["search"]["after"]["bias"] == saved.repair.after.bias
    assert RepairSettings(**result["settings"]) == saved.repair.settings
    assert result["seeds"] == {"search": 0, "split": 42}
    assert result["data"]["licence"] == "CC0"
    assert result["data"]["people_by_split_group_class"]["test"]["sex=F"] == (
        saved.dataset.group_counts("test")[0].tolist()
    )
    assert result["repaired_network"]["digest"] == read_network(saved.files["network"]).digest()
    assert result["slim_network"] is None
    assert result["versions"].keys() >= {"fairmend", "python", "torch", "numpy"}
    assert result["protocol"]["bootstrap_draws"] == 2000
    front = strictly(saved.files["front"])
    assert [entry["bias"] for entry in front["masks"]] == [made.bias for _, made in saved.repair.front]


@pytest.mark.parametrize("drop", ["output", "weights"])
@pytest.mark.parametrize("slim", [True, False])
def test_files_that_are_not_what_was_measured_are_refused(save: Save, drop: str, slim: bool) -> None:
    saved = save(drop=drop, slim=False, min_drop=1)
    (saved.out / "result.json").unlink()
    layers = list(saved.repair.network.layers)
    layers[-1] = replace(layers[-1], bias=layers[-1].bias + 0.1)
    wrongs = {
        "dropped neurons of .* are not silent": saved.network,
        "its outputs differ by up to": replace(saved.repair.network, layers=tuple(layers)),
    }
    for message, network in wrongs.items():
        with pytest.raises(RunError, match=f"network.safetensors was written, but read back .*: {message}"):
            save_repair(
                replace(saved.repair, network=network),
                saved.network,
                saved.dataset,
                saved.out,
                request=REQUEST,
                slim=slim,
            )
        assert not (saved.out / "result.json").exists()


def test_a_slim_network_that_is_not_what_was_measured_is_refused(save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = save(slim=False, min_drop=1)
    for wrong, message in (
        (bake, "its layers have .* neurons instead of"),
        (lambda network, mask, drop: slim_network(network, mask, drop + 1.0), "its outputs differ by up to"),
    ):
        monkeypatch.setattr("fairmend.tabular.repair.saving.slimmed", wrong)
        with pytest.raises(RunError, match=f"slim.safetensors was written, but read back .*: {message}"):
            save_repair(saved.repair, saved.network, saved.dataset, saved.out, request=REQUEST, slim=True)


def test_undefined_figures_become_null(save: Save) -> None:
    """A ratio of rates is undefined where nobody is predicted positive: its intervals hold NaN."""
    saved = save(objective="equal_opportunity_ratio")
    broken = replace(saved.repair, before=replace(saved.repair.before, bias=float("nan")))
    save_repair(broken, saved.network, saved.dataset, saved.out, request=REQUEST)
    assert load_result(saved.out)["search"]["before"]["bias"] is None
    strictly(saved.files["result"])


def test_the_same_seed_writes_the_same_bytes_but_for_the_session(save: Save) -> None:
    first, second = save(out="first"), save(out="second")
    for name in FILES - {"run.sqlite", "result.json"} | {"slim.safetensors", "slim.onnx"}:
        assert (first.out / name).read_bytes() == (second.out / name).read_bytes(), name
    results = [load_result(saved.out) for saved in (first, second)]
    sessions = [result.pop("session") for result in results]
    assert json.dumps(results[0]) == json.dumps(results[1])
    assert sessions[0].keys() == sessions[1].keys() >= {"finished", "seconds", "command", "request"}


@pytest.mark.parametrize(("n_outputs", "activations"), [(1, ("leaky_relu", "elu")), (3, ("gelu_tanh", "sigmoid"))])
def test_the_snippets_of_the_card_run_as_they_stand(
    n_outputs: int, activations: tuple[str, str], save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = save(make_network(n_outputs, activations))
    monkeypatch.chdir(saved.out)
    snippets = re.findall(r"```python\n(.*?)```", saved.files["card"].read_text(), re.DOTALL)
    assert len(snippets) == 3
    X = saved.dataset.subset("test")[0]
    expected = read_network(saved.files["network"]).predict(X)
    for snippet in snippets:
        names: dict[str, Any] = {"X": X}
        exec(snippet, names)
        assert (np.asarray(names["classes"]) == expected).all()


def test_the_card_says_what_was_done_and_what_it_does_not_show(save: Save) -> None:
    saved = save()
    card = saved.files["card"].read_text()
    test = saved.repair.splits["test"]
    assert f"{test.before.value.value:.3f} | {test.after.value.value:.3f}" in card
    for fact in ("p = ", "Licence of the data: CC0", "sex=F, sex=M", "in none of them", "does not settle fairness"):
        assert fact in card
    assert "group sex=F is small" in card
    assert card.index("## Figures on the test split") < card.index("## Figures on the train split")
    untouched = replace(
        saved.repair, mask=saved.repair.space.untouched(), network=saved.network, after=saved.repair.before
    )
    save_repair(untouched, saved.network, saved.dataset, saved.out, request=REQUEST)
    assert "The network is unchanged" in saved.files["card"].read_text()
    assert "unchanged" in load_result(saved.out)["outcome"]["verdict"]


def test_a_run_is_gone_on_with_in_its_own_directory_only(save: Save) -> None:
    saved = save()
    mine: dict[str, Any] = {"network": saved.network, "dataset": saved.dataset, "settings": saved.repair.settings}
    with open_run(saved.out, **mine, request={"data": "moved/people.csv"}) as store:
        again = repair_network(saved.network, saved.dataset, saved.repair.settings, store=store)
    assert again.run.measured == 0
    assert again.mask == saved.repair.mask
    others: list[tuple[str, dict[str, Any]]] = [
        ("settings.seed: was 0, is 9", {"settings": replace(saved.repair.settings, seed=9)}),
        ("network: was", {"network": make_network(1, ("relu", "relu"))}),
        ("dataset.arrays: was", {"dataset": replace(saved.dataset, y=1 - saved.dataset.y)}),
    ]
    for message, change in others:
        with pytest.raises(RunError, match=re.escape(message)):
            open_run(saved.out, **(mine | change), request=REQUEST)


def opened(out: Path) -> Store:
    return open_run(out, network=make_network(), dataset=make_dataset(), settings=RepairSettings(), request=REQUEST)


def test_a_directory_of_something_else_is_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError, match=r"not empty and holds no run.*thesis\.tex"):
        opened(tmp_path)
    with pytest.raises(RunError, match="is a file, not a directory"):
        opened(tmp_path / "thesis.tex")
    with pytest.raises(RunError, match="cannot make"):
        opened(tmp_path / "thesis.tex" / "out")
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "run.sqlite").write_bytes(b"something else entirely" * 100)
    with pytest.raises(RunError, match="not a run of fairmend"):
        opened(tmp_path / "other")


def test_a_run_killed_before_it_began_is_taken_over(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "run.sqlite").touch()
    (out / "run.sqlite-lock").touch()
    opened(out).close()
    (out / "original.safetensors").unlink()  # killed between the two files
    with opened(out) as store:
        assert store.header["kind"] == "tabular repair"
        assert store.header["request"] == REQUEST
    assert read_network(out / "original.safetensors").digest() == make_network().digest()


def test_a_read_only_directory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> int:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "open", refused)  # root may write everywhere, so permissions alone do not test it
    with pytest.raises(RunError, match=r"Read-only file system.*choose another --out"):
        opened(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_full_disk_leaves_nothing_half_written(save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    saved = save()
    before = {file.name: file.read_bytes() for file in saved.out.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(RunError, match="No space left on device"):
            save_repair(saved.repair, saved.network, saved.dataset, saved.out, request=REQUEST)
        with pytest.raises(RunError, match="No space left on device"):
            opened(tmp_path / "new")
    assert {file.name: file.read_bytes() for file in saved.out.iterdir()} == before
    assert not (tmp_path / "new").exists()


def test_results_that_cannot_be_shown_say_why(save: Save, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no saved repair"):
        load_result(tmp_path)
    opened(tmp_path / "begun").close()
    with pytest.raises(RunError, match="fairmend resume"):
        load_result(tmp_path / "begun")
    saved = save()
    for content, message in (
        ('{"schema": ', "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ("[]", "is not the result"),
        ('{"schema": "fairmend tabular repair", "schema_version": 99}', "schema version 99"),
    ):
        saved.files["result"].write_text(content)
        with pytest.raises(RunError, match=message):
            load_result(saved.out)
