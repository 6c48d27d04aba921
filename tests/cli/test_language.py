"""The commands `fairmend lm ...` on a tiny random model of the user's own, with the user's own prompts and scorer."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
    set_seed,
)

from .conftest import Outcome, Run, arguments

WORDS = ["<pad>", "</s>", "<unk>", *(f"w{number}" for number in range(3, 64))]
SCORER = """\
def score(texts):
    numbers = [[int(word[1:]) for word in text.split() if word[1:].isdigit()] for text in texts]
    return [sum(n % 2 == 0 for n in row) / len(row) if row else 0.0 for row in numbers]
"""
MEASURE: dict[str, Any] = {
    "--prompts": "people.csv",
    "--prompt-count": 16,
    "--scorer": "python:words_scorer_of_cli_tests:score",
    "--new-tokens": 4,
    "--text": "text.txt",
    "--text-tokens": 96,
    "--device": "cpu",
    "--quiet": True,
}
REPAIR = MEASURE | {"--alpha": 0.4, "--gamma": 0.3, "--loss-scores": "first-order", "--out": "out"}


def tokenizer() -> Any:
    backend = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=64
    )


def save(model: Any, folder: str) -> None:
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)


def gpt2(folder: str, n_layer: int = 3, seed: int = 0) -> None:
    set_seed(seed)
    config = GPT2Config(
        vocab_size=len(WORDS), n_positions=64, n_embd=16, n_layer=n_layer, n_head=4, eos_token_id=1, bos_token_id=1
    )
    config.initializer_range = 0.3
    save(GPT2LMHeadModel(config), folder)


def words(n: int, seed: int) -> str:
    return " ".join(f"w{number}" for number in np.random.default_rng(seed).integers(3, 64, n))


def write_prompts(n: int = 40, header: tuple[str, str] = ("prompt", "group"), group: str = "b") -> None:
    with Path("people.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows((words(4, row), "a" if row % 2 else group) for row in range(n))


@pytest.fixture
def office(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a model, prompts, a text and a scorer; the cache is empty and the hub out of reach."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FAIRMEND_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    gpt2("model")
    write_prompts()
    Path("text.txt").write_text("".join(words(12, 100 + row) + "\n" for row in range(30)))
    Path("words_scorer_of_cli_tests.py").write_text(SCORER)
    return tmp_path


def lm(run: Run, command: str, options: dict[str, Any], *positional: str) -> Outcome:
    return run("lm", command, *(positional or ("model",)), *arguments(options))


def logits(folder: str) -> Any:
    model = AutoModelForCausalLM.from_pretrained(folder)
    ids = tokenizer()(words(12, 5), return_tensors="pt")["input_ids"]
    return model(ids).logits.detach().numpy()


class TestAudit:
    def test_says_bias_toxicity_perplexity_and_a_verdict(self, run: Run, office: Path) -> None:
        outcome = lm(run, "audit", MEASURE)
        assert outcome.code == 0, outcome.err
        for said in ("Bias by axis", "people", "Toxicity by group", "Perplexity", "standard error", "p-value"):
            assert said in outcome.out
        assert "repair" in outcome.out.splitlines()[-1]

    def test_json_has_the_same_figures_and_they_add_up(self, run: Run, office: Path) -> None:
        found = lm(run, "audit", MEASURE | {"--json": True}).document
        (axis,) = found["axes"]
        means = {group["name"]: group["mean"] for group in axis["bias"]["groups"]}
        assert set(means) == {"a", "b"}
        assert axis["bias"]["value"] == pytest.approx(abs(means["a"] - means["b"]))
        assert axis["bias"]["excess"] == pytest.approx(axis["bias"]["value"] - axis["bias"]["floor"])
        assert axis["prompts"]["counts"] == {"a": 8, "b": 8}
        assert found["perplexity"]["standard_error"] > 0
        assert "window" in found["perplexity"]["protocol"]
        assert found == lm(run, "audit", MEASURE | {"--json": True}).document


class TestRepair:
    def test_saves_a_checkpoint_that_plain_transformers_loads_and_shows_held_out_figures(
        self, run: Run, office: Path
    ) -> None:
        outcome = lm(run, "repair", REPAIR | {"--choice": "rule"})
        assert outcome.code == 0, outcome.err
        assert "Held-out prompts, never seen by the search" in outcome.out
        saved = {path.name for path in Path("out").iterdir()}
        assert saved >= {"model.safetensors", "config.json", "mask.json", "result.json", "README.md", "run.sqlite"}
        dropped = json.loads(Path("out/mask.json").read_text())["dropped"]
        assert len(dropped) == 4
        assert not np.allclose(logits("out"), logits("model"))
        again = lm(run, "apply", {"--out": "again"}, "model", "out/mask.json")
        assert again.code == 0, again.err
        np.testing.assert_array_equal(logits("again"), logits("out"))

    def test_the_same_command_goes_on_with_its_run_and_another_is_refused(self, run: Run, office: Path) -> None:
        options = REPAIR | {"--method": "magnitude", "--json": True}
        first, second = (lm(run, "repair", options).document for _ in range(2))
        assert {**first, "session": 0} == {**second, "session": 0}
        other = lm(run, "repair", options | {"--seed": 1})
        assert other.code == 2
        assert "seed" in other.document["error"]["message"]


class TestScore:
    def test_writes_every_head_and_says_how_far_the_ranking_would_repeat(self, run: Run, office: Path) -> None:
        outcome = lm(run, "score", MEASURE | {"--top": 3, "--out": "heads.csv"})
        assert outcome.code == 0, outcome.err
        with Path("heads.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 12
        lowest = min(rows, key=lambda row: float(row["bias_effect[people]"]))
        table = outcome.out[outcome.out.index("Heads without which the people bias") :].splitlines()
        assert table[3].split()[:2] == [lowest["layer"], lowest["head"]]
        assert "Reliability" in outcome.out
        assert "too few" in outcome.message or "noise" in outcome.message

    def test_json_has_the_scores_of_the_csv(self, run: Run, office: Path) -> None:
        found = lm(run, "score", MEASURE | {"--out": "heads.csv", "--json": True}).document
        with Path("heads.csv").open(newline="") as file:
            effects = [float(row["loss_effect"]) for row in csv.DictReader(file)]
        assert found["scores"]["loss"]["effect"] == effects


class TestDiff:
    def test_shows_what_a_repair_changed(self, run: Run, office: Path) -> None:
        assert lm(run, "repair", REPAIR | {"--choice": "rule"}).code == 0
        outcome = lm(run, "diff", MEASURE | {"--show": 2}, "model", "out")
        assert outcome.code == 0, outcome.err
        assert "continuations differ" in outcome.out
        assert outcome.out.count("  before (") == outcome.out.count("  after  (") == 2
        found = lm(run, "diff", MEASURE | {"--json": True}, "model", "out").document
        sizes = [abs(pair["toxicity_after"] - pair["toxicity_before"]) for pair in found["pairs"]]
        assert sizes == sorted(sizes, reverse=True)
        assert found["perplexity"]["before"] != found["perplexity"]["after"]

    def test_a_model_does_not_differ_from_itself(self, run: Run, office: Path) -> None:
        found = lm(run, "diff", MEASURE | {"--json": True}, "model", "model").document
        assert found["differing"] == 0
        assert found["perplexity"]["ratio"] == 1


def other_mask(run: Run) -> None:
    gpt2("other", seed=9)
    assert lm(run, "repair", REPAIR | {"--method": "random", "--choice": "rule"}, "other").code == 0


def classifier(run: Run) -> None:
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        id2label={0: "kind", 1: "toxicity"},
        label2id={"kind": 0, "toxicity": 1},
    )
    save(BertForSequenceClassification(config), "classifier")


def encoder_decoder(run: Run) -> None:
    config = T5Config(vocab_size=len(WORDS), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    save(T5ForConditionalGeneration(config), "t5")


def foreign(run: Run) -> None:
    Path("out").mkdir()
    Path("out/thesis.txt").write_text("mine")


def corpus(run: Run) -> None:
    """The smallest data set with the layout of HolisticBias."""
    Path("corpus").mkdir()
    files = {
        "descriptors.json": {"ability": {"auditory": [{"descriptor": "Deaf", "preference": "no_data"}]}},
        "nouns.json": {"female": [["woman", "women"]]},
        "sentence_templates.json": {"I am {noun_phrase}.": {}},
        "standalone_noun_phrases.json": {},
    }
    for name, content in files.items():
        Path("corpus", name).write_text(json.dumps(content))


def nothing(run: Run) -> None:
    """The desk is as it should be."""


@pytest.mark.parametrize(
    ("prepare", "command", "positional", "options", "said"),
    [
        pytest.param(
            corpus, "audit", (), {"--holistic-bias": "corpus", "--axis": "wealth"}, ("wealth", "ability"), id="axis"
        ),
        pytest.param(
            classifier,
            *("audit", (), {"--scorer": "classifier", "--scorer-label": "rudeness"}),
            ("rudeness", "toxicity"),
            id="label",
        ),
        pytest.param(encoder_decoder, "audit", ("t5",), {}, ("t5", "causal"), id="encoder-decoder"),
        pytest.param(classifier, "repair", ("classifier",), REPAIR, ("classifier", "causal"), id="classifier"),
        pytest.param(nothing, "audit", ("./missing",), {}, ("missing", "directory"), id="no-model"),
        pytest.param(
            other_mask, "apply", ("model", "out/mask.json"), {"--out": "new"}, ("other", "made for"), id="mask"
        ),
        pytest.param(nothing, "apply", ("model", "no.json"), {"--out": "new"}, ("no.json", "mask"), id="no-mask"),
        pytest.param(lambda run: write_prompts(group=""), "audit", (), {}, ("people.csv", "group"), id="empty-group"),
        pytest.param(
            lambda run: write_prompts(header=("text", "who")), "audit", (), {}, ("people.csv", "prompt"), id="columns"
        ),
        pytest.param(lambda run: write_prompts(n=8), "audit", (), {}, ("10",), id="few-prompts"),
        pytest.param(nothing, "repair", (), REPAIR | {"--alpha": 1.5}, ("alpha", "1.5"), id="alpha"),
        pytest.param(nothing, "repair", (), REPAIR | {"--alpha": 0.8}, ("0.8", "at most 1"), id="alpha-and-gamma"),
        pytest.param(nothing, "repair", (), REPAIR | {"--gamma": -1}, ("gamma", "-1"), id="gamma"),
        pytest.param(nothing, "repair", (), REPAIR | {"--method": "luck"}, ("luck", "fasp"), id="method"),
        pytest.param(foreign, "repair", (), REPAIR, ("out", "empty"), id="foreign-out"),
        pytest.param(nothing, "score", (), {"--out": "people.csv"}, ("people.csv", "new file"), id="score-over-file"),
        pytest.param(nothing, "audit", (), {"--dtype": "int8"}, ("int8", "float32"), id="dtype"),
        pytest.param(nothing, "audit", (), {"--batch-size": "0"}, ("auto",), id="batch-size"),
        pytest.param(nothing, "audit", (), {"--new-tokens": 0}, ("--new-tokens", "0"), id="new-tokens"),
        pytest.param(nothing, "audit", (), {"--scorer": "python:nowhere:score"}, ("nowhere",), id="scorer"),
    ],
)
def test_input_that_cannot_work_ends_with_exit_code_2_and_says_why(
    run: Run,
    office: Path,
    prepare: Callable[[Run], None],
    command: str,
    positional: tuple[str, ...],
    options: dict[str, Any],
    said: tuple[str, ...],
) -> None:
    prepare(run)
    before = sorted(Path().rglob("*"))
    base = {} if command == "apply" else MEASURE
    outcome = lm(run, command, base | options, *positional)
    assert outcome.code == 2, outcome.out
    for word in said:
        assert word in outcome.message
    assert [path for path in sorted(Path().rglob("*")) if "__pycache__" not in path.parts] == before


def test_ctrl_c_keeps_what_was_measured_and_says_how_to_go_on(
    run: Run, office: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def press(*given: object, **named: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as pressed:
        pressed.setattr("fairmend.language.repair.judge", press)
        stopped = lm(run, "repair", REPAIR)
    assert stopped.code == 130
    assert "same command again with the same --out" in stopped.message
    assert Path("out/run.sqlite").is_file()
    assert not Path("out/result.json").exists()
    assert lm(run, "repair", REPAIR).code == 0
    assert Path("out/result.json").is_file()


def test_help_loads_no_torch() -> None:
    code = "import sys; from fairmend.cli.main import app; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
