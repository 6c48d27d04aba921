"""`fairmend lm chat`: prompts on standard input, both models' continuations and preferences on standard output."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from fairmend.cli.main import app

from ..conftest import Run
from ..language_desk import gpt2, press, tokenizer

SHORT = ("--alternatives", "w40|w41", "--new-tokens", "4", "--device", "cpu", "--quiet")


@pytest.fixture
def pair(office: object) -> None:
    """The desk's model and another one in the place of a repaired copy."""
    gpt2("repaired", seed=1)


def chat(lines: str, *options: str, models: tuple[str, str] = ("model", "repaired")) -> Any:
    return CliRunner().invoke(app, ["lm", "chat", *models, *SHORT, *options], input=lines)


@torch.no_grad()
def preferred(folder: str, prompt: str, first: str, second: str) -> float:
    """Of two words of one token each, by transformers alone."""
    model, words = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    logits = model(**words(prompt, return_tensors="pt")).logits[0, -1].log_softmax(-1)
    a, b = words.convert_tokens_to_ids([first, second])
    return float(logits[a] - logits[b])


@torch.no_grad()
def greedy(folder: str, prompt: str) -> str:
    model, words = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    ids = words(prompt, return_tensors="pt")
    written = model.generate(**ids, max_new_tokens=4, do_sample=False, pad_token_id=0)[0, ids["input_ids"].shape[1] :]
    return str(words.decode(written, skip_special_tokens=True)).strip()


def test_json_has_a_line_per_prompt_with_what_transformers_gives(pair: None) -> None:
    done = chat("w7 w8 w9\n\nw5 w6 ||| w20 | w21\n", "--json", "--greedy")
    assert done.exit_code == 0, done.stderr
    first, second = map(json.loads, done.stdout.splitlines())
    assert (first["prompt"], first["alternatives"]) == ("w7 w8 w9", ["w40", "w41"])
    assert (second["prompt"], second["alternatives"]) == ("w5 w6", ["w20", "w21"])
    for found in (first, second):
        for side, folder in (("before", "model"), ("after", "repaired")):
            wanted = preferred(folder, found["prompt"], *found["alternatives"])
            assert found[side]["preference"] == pytest.approx(wanted, abs=1e-4)
            assert found[side]["continuation"].strip() == greedy(folder, found["prompt"])


def test_people_see_both_side_by_side_and_the_same_seed_says_the_same(pair: None) -> None:
    done, again, other = chat("w7 w8\n"), chat("w9\nw7 w8\n"), chat("w7 w8\n", "--seed", "1")
    assert done.exit_code == 0
    for said in ("model", "repaired", "w40 | w41", "nats"):
        assert said in done.stdout
    assert again.stdout.endswith(done.stdout)
    assert other.stdout != done.stdout


def test_a_line_that_cannot_work_is_refused_and_the_next_one_answered(pair: None) -> None:
    lines = f"w7 ||| w8\n{'w5 ' * 80}\n||| w8 | w9\nw5\n"
    done = chat(lines, "--json")
    assert done.exit_code == 0
    *refused, answered = map(json.loads, done.stdout.splitlines())
    assert [sorted(line) for line in refused] == [["error", "prompt"]] * 3
    assert "names no two alternatives" in refused[0]["error"]["message"]
    assert answered["before"]["continuation"]
    assert "names no two alternatives" in chat(lines).stderr


def test_what_cannot_be_compared_is_refused(run: Run, pair: None) -> None:
    assert "--alternatives 'he' names no two" in chat("", "--alternatives", "he").stderr
    gpt2("other")
    longer = tokenizer()
    longer.add_tokens(["more"])
    longer.save_pretrained("other")
    done = chat("w5\n", models=("model", "other"))
    assert done.exit_code == 2
    assert "different vocabularies" in done.stderr


def test_control_characters_are_shown_not_carried_out(pair: None) -> None:
    done = chat("w5 \x1b[31mw6\n")
    assert "\x1b[31m" not in done.stdout
    assert "\\x1b[31mw6" in done.stdout


def test_ctrl_c_ends_it(pair: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairmend.language.measurement.replies.reply", press)
    assert chat("w5\n").exit_code == 130
