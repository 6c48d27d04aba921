"""Perplexity: both protocols against the loops they are named after, errors, changes; and the texts."""

import gzip
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from architectures import ARCHITECTURES
from hypothesis import given
from hypothesis import strategies as st
from tiny_lm import tiny_lm

from fairmend.errors import DataError, InputError, ModelError
from fairmend.language.measurement import texts
from fairmend.language.measurement.perplexity import (
    Perplexity,
    PerplexityProtocol,
    check_finite,
    perplexity,
    perplexity_protocol,
    perplexity_ratio,
    summarise,
)
from fairmend.language.measurement.texts import Text, encode_text, read_text
from fairmend.language.models.models import LanguageModel


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return tiny_lm("gpt2")


def some_tokens(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(3, 96, (n,), generator=torch.Generator().manual_seed(seed))


def window_loop(lm: LanguageModel, tokens: torch.Tensor, window: int, stride: int) -> list[tuple[float, int]]:
    """The loop in everybody's evaluation script: the model's own mean loss with labels of -100 for scored tokens."""
    losses, previous = [], 0
    for begin in range(0, len(tokens), stride):
        end = min(begin + window, len(tokens))
        inputs = tokens[None, begin:end]
        labels = inputs.clone()
        labels[:, : -(end - previous)] = -100
        with torch.no_grad():
            loss = lm.model(input_ids=inputs, labels=labels).loss.item()
        losses.append((loss, int((labels[:, 1:] != -100).sum())))
        previous = end
        if end == len(tokens):
            break
    return losses


# --- protocols


@pytest.mark.parametrize(
    ("n", "window", "stride"), [(200, 64, 16), (200, 30, 7), (64, 64, 16), (65, 64, 63), (40, 64, 9)]
)
@pytest.mark.parametrize("rows", [1, 3, "auto"])
def test_standard_is_the_sliding_window_loop(lm: LanguageModel, n: int, window: int, stride: int, rows: int):
    tokens = some_tokens(n)
    losses = window_loop(lm, tokens, window, stride)
    expected = math.exp(sum(loss * count for loss, count in losses) / sum(count for _, count in losses))
    found = perplexity(lm.with_batch_size(rows), tokens, "standard", window, stride)
    assert found.value == pytest.approx(expected, rel=1e-5)
    assert found.n_tokens == n - 1
    assert found.protocol == f"standard (window {window}, stride {stride})"


@pytest.mark.parametrize(
    ("n", "window", "stride"), [(200, 16, 32), (200, 16, 16), (201, 30, 16), (135, 8, 32), (40, 64, 9)]
)
def test_fasp_is_the_mean_over_windows(lm: LanguageModel, n: int, window: int, stride: int):
    tokens = some_tokens(n, seed=1)
    losses = window_loop(lm, tokens, window, stride)
    found = perplexity(lm, tokens, "fasp", window, stride)
    assert found.value == pytest.approx(math.exp(np.mean([loss for loss, _ in losses])), rel=1e-5)
    assert found.n_tokens == sum(count for _, count in losses)


def test_standard_scores_every_token_but_the_first_once_even_with_a_short_window(lm: LanguageModel):
    tokens = some_tokens(100)
    found = perplexity(lm, tokens, "standard", window=16)
    assert found.n_tokens == 99
    assert found.protocol == "standard (window 16, stride 15)"
    blocks = [tokens[start : start + 16] for start in range(0, 99, 15)]
    losses = [loss * count for block in blocks for loss, count in window_loop(lm, block, 16, 16)]
    assert found.value == pytest.approx(math.exp(sum(losses) / 99), rel=1e-5)


@given(st.integers(2, 400), st.integers(2, 80), st.integers(1, 100))
def test_windows_score_in_order_what_none_scored_before(n: int, window: int, stride: int):
    standard = PerplexityProtocol("standard", window, stride).windows(n)
    assert [place for w in standard for place in range(w.first, w.stop)] == list(range(1, n))
    fasp = PerplexityProtocol("fasp", window, stride).windows(n)
    scored = [place for w in fasp for place in range(w.first, w.stop)]
    assert scored == sorted(set(scored))
    for w in (*standard, *fasp):
        assert 0 <= w.start < w.first < w.stop <= min(n, w.start + window)


@pytest.mark.parametrize(("context", "window"), [(1024, 256), (2048, 512), (4096, 1024)])
def test_fasp_windows_are_a_quarter_of_the_positions(context: int, window: int):
    lm = tiny_lm("llama-mha", max_position_embeddings=context)
    assert perplexity_protocol(lm, "fasp").window == window
    assert perplexity_protocol(lm).window == context


def test_fasp_scores_half_of_a_text_with_gpt2():
    windows = PerplexityProtocol("fasp", 256, 512).windows(51_200)
    assert sum(w.stop - w.first for w in windows) == 100 * 255


@pytest.mark.parametrize("name", sorted(ARCHITECTURES)[::4])
def test_rows_of_a_batch_are_as_single_windows(name: str):
    lm, tokens = tiny_lm(name), some_tokens(90)
    together, alone = (perplexity(lm.with_batch_size(rows), tokens, window=20, stride=10) for rows in (8, 1))
    assert together.value == pytest.approx(alone.value, rel=1e-5)


# --- standard errors and changes


def test_the_standard_error_is_that_of_repeated_texts():
    generator = np.random.default_rng(0)
    protocol = PerplexityProtocol("standard", 10, 9)

    def text() -> list[np.ndarray]:
        return [-generator.gamma(4.0, 0.5, n) - generator.normal(0, 0.3) for n in generator.integers(5, 10, 200)]

    results = [summarise(protocol, text()) for _ in range(300)]
    spread = np.std([result.value for result in results])
    assert np.mean([result.standard_error for result in results]) == pytest.approx(spread, rel=0.1)


@pytest.mark.parametrize("kind", ["standard", "fasp"])
def test_the_standard_error_agrees_with_a_jackknife(lm: LanguageModel, kind: str):
    protocol = PerplexityProtocol(kind, 16, 10)  # type: ignore[arg-type]
    found = perplexity(lm, some_tokens(600), kind, 16, 10)  # type: ignore[arg-type]
    values = found.log_likelihoods
    n = len(values)
    left_out = np.array([summarise(protocol, values[:i] + values[i + 1 :]).value for i in range(n)])
    jackknife = math.sqrt((n - 1) / n * ((left_out - left_out.mean()) ** 2).sum())
    assert found.standard_error == pytest.approx(jackknife, rel=0.05)


def test_a_single_window_has_no_standard_error(lm: LanguageModel):
    assert math.isnan(perplexity(lm, some_tokens(20)).standard_error)


def test_a_change_judged_in_pairs_is_surer_than_two_perplexities(lm: LanguageModel):
    tokens = some_tokens(800)
    before = perplexity(lm, tokens, window=32, stride=31)
    shifted = [values - 0.1 + 0.01 * np.sin(np.arange(len(values))) for values in before.log_likelihoods]
    after = summarise(PerplexityProtocol("standard", 32, 31), shifted)
    ratio = perplexity_ratio(before, after)
    assert ratio.value == pytest.approx(after.value / before.value)
    assert ratio.value == pytest.approx(math.exp(0.1), rel=0.01)
    assert ratio.standard_error < 0.1 * before.standard_error / before.value


def test_perplexities_of_different_protocols_are_not_compared(lm: LanguageModel):
    tokens = some_tokens(100)
    with pytest.raises(InputError, match="different protocols or texts"):
        perplexity_ratio(perplexity(lm, tokens, window=32), perplexity(lm, tokens, window=16))


# --- broken models, refusals


def test_nan_logits_give_a_nan_and_an_error_only_for_the_untouched_model():
    broken = tiny_lm("llama-mha")
    with torch.no_grad():
        broken.model.lm_head.weight[5] = float("nan")
    found = perplexity(broken, some_tokens(60), window=20)
    assert math.isnan(found.value)
    assert not found.is_finite
    with pytest.raises(ModelError, match=r"perplexity nan without any mask"):
        check_finite(found, broken)


def test_a_perplexity_beyond_all_numbers_is_infinite():
    found = summarise(PerplexityProtocol("standard", 10, 9), [np.full(9, -1000.0), np.full(9, -2000.0)])
    assert found.value == math.inf


def test_a_finite_perplexity_passes(lm: LanguageModel):
    found = perplexity(lm, some_tokens(60))
    assert check_finite(found, lm) is found
    assert isinstance(found, Perplexity)


@pytest.mark.parametrize(
    ("n", "options", "said"),
    [
        (60, {"protocol": "strided"}, "must be 'standard' or 'fasp'"),
        (60, {"window": 65}, "longer than the context"),
        (60, {"window": 1}, "score nothing"),
        (60, {"stride": 0}, "score nothing"),
        (1, {}, "2 tokens or more"),
    ],
)
def test_what_cannot_work_is_refused(lm: LanguageModel, n: int, options: dict[str, object], said: str):
    with pytest.raises(InputError, match=said):
        perplexity(lm, some_tokens(n), **options)  # type: ignore[arg-type]


# --- texts


def test_a_file_is_cut_into_two_halves_that_share_nothing(tmp_path: Path):
    lines = [f"w{number} w5\n" for number in range(100)]
    (tmp_path / "own.txt").write_text("".join(lines))
    search, judge = (read_text(tmp_path / "own.txt", part) for part in ("search", "judge"))
    assert search.content + judge.content == "".join(lines)
    assert abs(len(search.content) - len(judge.content)) < 20
    assert search.source == "own.txt, first half"
    assert search.fingerprint() != judge.fingerprint()


def test_wikitext_is_searched_on_validation_and_judged_on_test(tmp_path: Path):
    (tmp_path / "wikitext2-valid.txt").write_text("w1 w2\n")
    (tmp_path / "wikitext2-test.txt.gz").write_bytes(gzip.compress(b"w3 w4\n"))
    assert read_text(f"wikitext2:{tmp_path}", "search").content == "w1 w2\n"
    assert read_text(f"wikitext2:{tmp_path}", "judge").content == "w3 w4\n"


def test_wikipedia_passages_are_split_by_article(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    paths = []
    for category in ("a", "b"):
        articles = {f"{category}{n}": [f"first {category}{n}", f"second {category}{n}"] for n in range(20)}
        paths.append(tmp_path / f"{category}.json")
        paths[-1].write_text(json.dumps({category: articles}))
    monkeypatch.setattr(texts, "wikipedia_passages", lambda progress: tuple(paths))
    lines = {part: read_text(None, part).content.splitlines() for part in ("search", "judge")}  # type: ignore[arg-type]
    assert set(lines["search"]).isdisjoint(lines["judge"])
    assert len(lines["search"] + lines["judge"]) == 40
    assert "first a3 second a3" in lines["search"] + lines["judge"]
    assert {line.split()[1][0] for line in lines["search"][:8]} == {"a", "b"}
    monkeypatch.setattr(texts, "wikipedia_passages", lambda progress: tuple(reversed(paths)))
    assert read_text(None, "search").content.splitlines() == lines["search"]


def test_the_head_of_a_long_text_has_the_tokens_of_the_whole(lm: LanguageModel):
    text = Text("".join(f"w{number % 90} w{number % 7}\n" for number in range(5000)), "made")
    whole = encode_text(lm, text)
    assert len(whole) == 10_000
    assert encode_text(lm, text, 300).tolist() == whole[:300].tolist()


def test_a_text_with_few_tokens_among_many_characters_is_read_on(lm: LanguageModel):
    text = Text(" " * 5000 + "\n" + "w5 w6 " * 200, "made")
    assert len(encode_text(lm, text, 50)) == 50


@pytest.mark.parametrize(
    ("content", "said"), [(None, "cannot read"), (b"", "empty"), (b"\xff\xfe\x00", "UTF-8"), (b"one line", "halves")]
)
def test_unusable_files_are_named(tmp_path: Path, content: bytes | None, said: str):
    if content is not None:
        (tmp_path / "own.txt").write_bytes(content)
    with pytest.raises(DataError, match=said):
        read_text(tmp_path / "own.txt")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_no_part_of_a_text(tmp_path: Path, encoding: str):
    (tmp_path / "own.txt").write_bytes("für w1\nw2\n".encode(encoding))
    assert read_text(tmp_path / "own.txt", "search").content == "für w1\n"


def test_a_pipe_is_refused_and_a_bomb_is_unpacked_no_further_than_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(DataError, match="not an ordinary file"):
        read_text(tmp_path / "pipe.txt")
    monkeypatch.setattr(texts, "_LARGEST", 1000)
    (tmp_path / "bomb.txt.gz").write_bytes(gzip.compress(b"w1\n" * 100_000))
    with pytest.raises(DataError, match="longer than 1,000 bytes"):
        read_text(tmp_path / "bomb.txt.gz")


def test_damaged_archives_and_empty_directories_are_named(tmp_path: Path):
    (tmp_path / "own.txt.gz").write_bytes(gzip.compress(b"w1 w2\n" * 999)[:30])
    with pytest.raises(DataError, match="cannot be read"):
        read_text(tmp_path / "own.txt.gz")
    with pytest.raises(DataError, match="has none of"):
        read_text(f"wikitext2:{tmp_path}")


def test_short_texts_and_unknown_parts_are_refused(lm: LanguageModel):
    with pytest.raises(DataError, match="has 3 tokens for tiny gpt2, 10 are needed"):
        encode_text(lm, Text("w1 w2 w3", "made"), 10)
    with pytest.raises(InputError, match="2 or more"):
        encode_text(lm, Text("w1 w2 w3", "made"), 1)
    with pytest.raises(InputError, match="part must be"):
        read_text(None, "test")  # type: ignore[arg-type]
