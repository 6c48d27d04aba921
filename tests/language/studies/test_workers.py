"""Workers that load the model for themselves: the same collection, repair and audit as one process makes."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_organism as organism
from subset_cases import SETTINGS, TEXTS, rude

from fairmend.errors import InputError, ModelError
from fairmend.language.measurement.answers import answers_of
from fairmend.language.models.models import LanguageModel, load_model
from fairmend.language.repair.audit import audit_model
from fairmend.language.repair.repair import repair_model
from fairmend.language.repair.subject import Subject, scoring_reading
from fairmend.language.scores.head_scores import score_heads
from fairmend.language.studies.collecting import collect, open_collection
from fairmend.language.toxicity.catalogue import CustomScorer, load_scorer
from fairmend.runs import Store
from fairmend.runs.workers.crew import Crew
from fairmend.runs.workers.processes import LocalProcesses

SMALL = replace(SETTINGS, prompts=24, subsets=replace(SETTINGS.subsets, max_drop=7, samples=20, finalists=2))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """The organism as a person has it, in a directory."""
    folder = tmp_path_factory.mktemp("organism")
    lm = organism.tiny_organism()
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    return load_model(str(folder), context=lm.context, end_ids=lm.end_ids)


@pytest.fixture(scope="module")
def crew() -> Iterator[Crew]:
    with Crew(LocalProcesses(2)) as crew:
        yield crew


def subject(lm: LanguageModel) -> Subject:
    return Subject(lm, organism.organism_prompts(), rude(), TEXTS)


def rows(path: Path) -> list[tuple[Any, ...]]:
    with Store.open(path, read_only=True) as store:
        return [(name, mask, made) for name in store.contexts() for mask, made in store.context(name)]


@pytest.mark.parametrize("fraction", ["shared", "own"])
def test_a_collection_is_the_same_bit_for_bit(saved: LanguageModel, crew: Crew, tmp_path: Path, fraction: str) -> None:
    settings = replace(SMALL, subsets=replace(SMALL.subsets, fraction=fraction))
    for name, workers in (("alone", None), ("together", crew)):
        with open_collection(tmp_path / name, subject(saved), settings) as store:
            found = collect(subject(saved), settings, store, samples=30, workers=workers)
            assert found.stopped == "evaluations"
    assert rows(tmp_path / "together" / "run.sqlite") == rows(tmp_path / "alone" / "run.sqlite")
    assert sum(each.done for each in crew.throughput()) >= 30


@pytest.mark.parametrize("method", ["fasp", "active", "genetic"])
def test_a_repair_is_the_same(saved: LanguageModel, crew: Crew, tmp_path: Path, method: Any) -> None:
    settings = replace(SMALL, method=method)
    made = []
    for name, workers in (("alone", None), ("together", crew)):
        with closing(Store.create(tmp_path / f"{name}.sqlite", {"kind": "test"})) as store:
            made.append(repair_model(subject(saved), settings, store=store, workers=workers))
    assert made[0].mask == made[1].mask
    assert made[0].held_out == made[1].held_out
    assert rows(tmp_path / "together.sqlite") == rows(tmp_path / "alone.sqlite")


def test_an_audit_of_several_axes_is_the_same(saved: LanguageModel, crew: Crew) -> None:
    prompts = organism.organism_prompts()
    several = replace(subject(saved), others=[replace(prompts, axis="again")])
    assert audit_model(several, SMALL, workers=crew).to_json() == audit_model(several, SMALL).to_json()


def test_what_other_processes_cannot_load_is_refused() -> None:
    with pytest.raises(ModelError, match=r"was given in Python.*save it into a directory.*--workers 1"):
        pickle.dumps(organism.tiny_organism())


def test_no_weights_travel_and_another_model_is_refused(saved: LanguageModel, tmp_path: Path) -> None:
    packed = pickle.dumps(saved)
    assert len(packed) < 2000
    assert pickle.loads(packed).fingerprint() == saved.fingerprint()
    assert pickle.loads(pickle.dumps(saved.turning("all"))).head_map == saved.turning("all").head_map
    make, (*named, fingerprint) = saved.__reduce__()
    with pytest.raises(ModelError, match=r"a worker has another .* weights_sha256: was .*0000"):
        make(*named, {**fingerprint, "weights_sha256": "0000"})


def test_scorers_are_loaded_again() -> None:
    mine = pickle.loads(pickle.dumps(load_scorer("python:tiny_organism:rude_share")))
    assert isinstance(mine, CustomScorer)
    assert mine.fingerprint() == rude().fingerprint()
    words = load_scorer("lexical", identity_words=["left-handed people"])
    assert pickle.loads(pickle.dumps(words)).fingerprint() == words.fingerprint()


def test_a_classifier_is_loaded_again_if_it_was_loaded(tmp_path: Path) -> None:
    from tiny_classifiers import classifier, save_classifier, tokenizer

    from fairmend.language.toxicity.classifiers import ClassifierScorer

    save_classifier(tmp_path, ["toxic"])
    loaded = load_scorer(str(tmp_path), device="cpu")
    packed = pickle.dumps(loaded)
    assert len(packed) < 1000
    assert pickle.loads(packed).fingerprint() == loaded.fingerprint()
    given = ClassifierScorer(classifier(["toxic"]), tokenizer(), name="given", device="cpu")
    with pytest.raises(InputError, match="was given in Python"):
        pickle.dumps(given)


@pytest.mark.parametrize(("loss", "bias"), [("exact", "generated"), ("screened", "first-order")])
def test_scores_of_single_heads_are_the_same(
    saved: LanguageModel, crew: Crew, tmp_path: Path, loss: Any, bias: Any
) -> None:
    made = []
    given = subject(saved)
    reading = scoring_reading(saved, TEXTS[0], SMALL)
    answers = [answers_of(saved, given.halves(SMALL)[0], given.scorer, SMALL.sampling)]
    for name, workers in (("alone", None), ("together", crew)):
        with closing(Store.create(tmp_path / f"{name}.sqlite", {"kind": "test"})) as store:
            made += [
                score_heads(
                    saved,
                    reading.tokens,
                    reading.protocol,
                    answers,
                    loss_method=loss,
                    bias_method=bias,
                    rules=replace(SMALL, method="fasp").finalists(),
                    store=store,
                    workers=workers,
                )
                for _ in range(2)  # again from what is kept
            ]
    one, *others = made
    for other in others:
        assert np.array_equal(one.loss.effect, other.loss.effect)
        assert np.array_equal(one.axes[0].effect, other.axes[0].effect)
    if bias == "first-order":
        assert any(note.startswith("first-order scores are found in this process") for note in crew.notes)
