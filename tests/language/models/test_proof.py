"""A model is proven before anything is measured: what drifted ends in a message, and never in a figure."""

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from architectures import ARCHITECTURES, tiny
from drifting import CACHE, drift, forget, raising, with_rows_in_their_old_order, without_cache
from shrinking import shrunk
from tiny_lm import sentences, tiny_lm, word_tokenizer
from typer.testing import CliRunner

from fairmend.cli.main import app
from fairmend.errors import InputError, ModelError
from fairmend.language.generation.decoding import DecodingRule
from fairmend.language.generation.generation import generate
from fairmend.language.generation.likelihoods import continuation_log_likelihoods
from fairmend.language.heads import gates
from fairmend.language.heads.heads import HeadMap, find_heads
from fairmend.language.measurement.perplexity import perplexity
from fairmend.language.measurement.texts import Text, encode_text
from fairmend.language.models.models import LanguageModel, load_model, wrap_model
from fairmend.language.models.proof import prove_gates
from fairmend.language.models.text_limits import context_of
from fairmend.language.models.writing import save_model
from fairmend.language.prompts.prompts import prompt_set
from fairmend.language.protocols import ReadingSettings, Sampling
from fairmend.language.repair.repair import repair_model
from fairmend.language.repair.settings import RepairSettings
from fairmend.language.repair.subject import Subject
from fairmend.language.toxicity.lexical import LexicalScorer

PROMPTS = sentences([3, 11, 5, 8, 9, 1, 17, 2])
IDS = np.arange(len(PROMPTS))


def wrapped(model: Any, **options: Any) -> LanguageModel:
    return wrap_model(model, word_tokenizer(pad_token="<pad>", unk_token="<unk>"), name="tiny", **options)


# --- what is proven


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_every_architecture_is_proven_with_room_to_spare(name: str, dtype: torch.dtype):
    lm = wrapped(tiny(name).to(dtype))
    for agreement in (lm.decoding.cache, lm.decoding.padding, prove_gates(lm.model, lm.head_map)):
        assert agreement.difference < agreement.allowed / 4
        assert agreement.without > 0.3  # what is at stake is seen, so that the proof could have failed
    assert (lm.context, lm.end_ids) == (64, (2,)) if name != "bloom" else (2048, (2,))


@pytest.mark.parametrize("kind", ["jamba", "lfm2", "qwen3_next", "falcon_h1", "granitemoehybrid", "zamba2", "mamba"])
def test_hybrid_and_recurrent_models_lose_the_rows_that_have_ended_and_no_others(kind: str):
    model = shrunk(kind)
    model.generation_config.eos_token_id = list(range(4, 40))  # most texts end early, and leave the batch
    lm = wrapped(model)
    found = generate(lm, PROMPTS * 3, np.arange(24), Sampling(new_tokens=12, top_k=None))
    assert len(set(found.lengths.tolist())) > 4
    for row in np.argsort(found.lengths)[-4:]:
        prompt, added = found.prompt_ids[row], torch.tensor(found.tokens(row))
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([[*prompt, *added]]), use_cache=False).logits[0, len(prompt) - 1 : -1]
        expected = DecodingRule(top_k=None).log_likelihoods(logits, added)
        np.testing.assert_allclose(found.log_likelihoods[row, : len(added)], expected, atol=2e-3)


def test_the_proof_is_in_the_fingerprint():
    lm = tiny_lm()
    proven = {"cache": True, "padding": True, "gates": True, "context": 64, "end_ids": [2]}
    assert lm.fingerprint()["proven"] == proven
    assert wrapped(tiny("llama-gqa"), end_ids=[5, 3]).fingerprint()["proven"] == proven | {"end_ids": [3, 5]}
    assert wrapped(shrunk("diffllama")).fingerprint()["proven"]["gates"] == "no heads"


def test_the_model_is_left_as_it_was():
    model: Any = tiny("gemma3")
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    lm = wrapped(model)
    prove_gates(lm.model, lm.head_map)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("roberta", "decoding with the cache does not equal"),  # counts positions from its padding token's number on
        ("deepseek_v4", "padding a prompt on the left|does not run"),  # compresses blocks of tokens, padding among them
        ("bart", "takes no argument position_ids"),
        ("openai-gpt", "takes no argument cache or past_key_values"),
        ("recurrent_gemma", "returns no cache"),
    ],
)
def test_architectures_that_cannot_be_read_on_in_batches_are_refused(kind: str, said: str):
    with pytest.raises(ModelError, match=said):
        wrapped(shrunk(kind), end_ids=(2,))


# --- what drifted

UNREAD: dict[str, tuple[Callable[[], Any], str]] = {
    "a cache by another name": (lambda: drift(tiny("llama-gqa"), {CACHE: "memory"}), "argument cache or past_key_val"),
    "no cache": (lambda: drift(tiny("llama-gqa"), {CACHE: None}), "takes no argument cache or past_key_values"),
    "a mask by another name": (lambda: drift(tiny("gpt2"), {"attention_mask": "mask"}), "argument attention_mask"),
    "no mask": (lambda: drift(tiny("llama-gqa"), {"attention_mask": None}), "takes no argument attention_mask"),
    "positions by another name": (
        lambda: drift(tiny("llama-gqa"), {"position_ids": "positions"}),
        "takes no argument position_ids",
    ),
    "no positions": (lambda: drift(tiny("gpt2"), {"position_ids": None}), "takes no argument position_ids"),
    "a cache that is not read": (lambda: forget(CACHE), "decoding with the cache does not equal one pass"),
    "a cache that is not given back": (lambda: drift(tiny("llama-gqa"), after=without_cache), "returns no cache"),
    "a cache that mixes up rows": (
        lambda: drift(tiny("llama-gqa"), after=with_rows_in_their_old_order),
        "decoding with the cache does not equal one pass",
    ),
    "a mask that is not read": (lambda: forget("attention_mask"), "padding a prompt on the left"),
    "positions that are not read": (lambda: forget("position_ids", "gpt2"), "padding a prompt on the left"),
    "a call that raises": (lambda: raising(TypeError("no argument 'x'\nmore")), r"does not run .*TypeError: no arg"),
    "another call that raises": (lambda: raising(RuntimeError("shapes 3 and 4")), "RuntimeError: shapes 3 and 4"),
    "no logits": (lambda: drift(tiny("llama-gqa"), after=lambda outputs: setattr(outputs, "logits", 7)), "no logits"),
}


@pytest.mark.parametrize("kind", UNREAD)
def test_what_drifted_is_refused_with_the_release_and_what_is_missing(kind: str):
    build, said = UNREAD[kind]
    with pytest.raises(ModelError, match=said) as refusal:
        wrapped(build())
    assert f"transformers {transformers.__version__}" in str(refusal.value)
    assert "DriftedForCausalLM" in str(refusal.value)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", [CACHE, "attention_mask"])
def test_rounding_does_not_hide_what_is_not_read(name: str, dtype: torch.dtype):
    with pytest.raises(ModelError, match=r"Logits differ by .* is allowed for torch"):
        wrapped(forget(name).to(dtype))


def test_a_slight_error_is_told_from_rounding():
    def blur(outputs: Any) -> None:
        if outputs.logits.shape[1] == 1:  # a token read alone, with a cache
            outputs.logits[..., 5] *= 1.02

    with pytest.raises(ModelError, match="decoding with the cache"):
        wrapped(drift(tiny("llama-gqa"), after=blur))


@pytest.mark.parametrize("called", [{CACHE: "cache"}, {CACHE: "past_key_values"}, {"logits_to_keep": None}])
def test_both_names_of_the_cache_serve_and_a_saving_may_be_unknown(called: dict[str, str | None]):
    expected = generate(tiny_lm(), PROMPTS, IDS, Sampling(new_tokens=6))
    found = generate(wrapped(drift(tiny("llama-gqa"), called)), PROMPTS, IDS, Sampling(new_tokens=6))
    assert found.token_ids.tolist() == expected.token_ids.tolist()


@pytest.mark.parametrize(
    ("part", "called"), [("mask", "attention_mask"), ("cache", CACHE), ("positions", "position_ids")]
)
def test_the_command_line_ends_with_a_message_and_without_a_figure(
    part: str, called: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    save_model(tiny_lm(), tmp_path / "model")
    rows = [f"w{4 + number} w{9 + number},{'ab'[number % 2]}\n" for number in range(20)]
    (tmp_path / "people.csv").write_text("prompt,group\n" + "".join(rows))
    (tmp_path / "text.txt").write_text("w4 w5 w6 w7 w8\n" * 30)
    forward = drift(tiny("llama-gqa"), {called: f"new_{part}"}).__class__.forward
    monkeypatch.setattr(transformers.LlamaForCausalLM, "forward", forward)
    line = (
        "lm audit {0}/model --prompts {0}/people.csv --scorer lexical --text {0}/text.txt --text-tokens 64 --device cpu"
    )
    result = CliRunner().invoke(app, line.format(tmp_path).split())
    said = " ".join(result.stderr.split())
    assert result.exit_code == 2
    assert result.stdout == ""
    assert re.search(f"LlamaForCausalLM.*{'past_key_values' if part == 'cache' else called}", said)
    assert transformers.__version__ in said


def test_logits_of_fewer_tokens_than_the_vocabulary_are_refused():
    def cut(outputs: Any) -> None:
        outputs.logits = outputs.logits[..., :40]

    with pytest.raises(ModelError, match=r"gives logits of 40 tokens, but its configuration says vocab_size=96"):
        wrapped(drift(tiny("llama-gqa"), after=cut))


@pytest.mark.parametrize("step", ["encode", "decode"])
def test_a_tokenizer_that_raises_ends_in_a_message(step: str, monkeypatch: pytest.MonkeyPatch):
    """Those of the library raise bare exceptions, on words without a token for what is unknown, and on other's ids."""

    def fail(*_: object, **__: object) -> None:
        raise Exception("WordLevel error: Missing [UNK] token")

    lm = tiny_lm()
    name = {"encode": "__call__", "decode": "batch_decode"}[step]
    lm.tokenizer.__class__ = type("Raising", (type(lm.tokenizer),), {name: fail})
    said = {"encode": r"tiny llama-gqa fails on 'w", "decode": r"tiny llama-gqa cannot spell what the model wrote"}[
        step
    ]
    with pytest.raises(ModelError, match=rf"{said}.*\(Exception: WordLevel error: Missing"):
        generate(lm, PROMPTS, IDS, Sampling(new_tokens=2))
    if step == "encode":
        with pytest.raises(ModelError, match=r"fails on 'w4 w5' \(Exception: WordLevel"):
            encode_text(lm, Text("w4 w5", "a file", "none"), None)


@pytest.mark.parametrize("step", ["prove_decoding", "prove_gates"])
def test_a_proof_that_does_not_fit_the_memory_says_so(step: str, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(f"fairmend.language.models.proof.{step}", full)
    with pytest.raises(ModelError, match="does not fit the memory of cpu: use bfloat16"):
        _ = tiny_lm().head_map


# --- gates


def test_gates_of_other_heads_are_refused():
    lm = tiny_lm("llama-mha")
    first, second = lm.head_map.sites
    claimed = HeadMap(lm.head_map.architecture, (second, first))
    assert prove_gates(lm.model, claimed).holds  # the order of layers is a matter of names
    width = HeadMap(
        lm.head_map.architecture,
        tuple(type(site)(site.name, site.layer, 2, 16, 2, site.kind) for site in lm.head_map.sites),
    )
    with pytest.raises(ModelError, match="gate does not do what silencing the head in its attention does"):
        prove_gates(lm.model, width)


def test_gates_that_do_nothing_are_refused_before_any_mask_is_measured(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gates._Gate, "__call__", lambda *_: None)
    lm = tiny_lm()
    with pytest.raises(ModelError, match="gate does not do what silencing"):
        _ = lm.head_map
    with pytest.raises(ModelError, match="gate does not do what silencing"):
        lm.fingerprint()


# --- where a text stops


def test_a_context_is_read_given_or_asked_for():
    assert context_of(transformers.MptConfig(), "tiny") == 2048
    assert context_of(transformers.BloomConfig(), "tiny") == 2048
    assert context_of(transformers.BloomConfig(seq_length=512), "tiny") == 512
    config = transformers.LlamaConfig(max_position_embeddings=77)
    assert context_of(config, "tiny") == 77
    config.max_position_embeddings = -1
    with pytest.raises(ModelError, match=r"how many tokens .* max_position_embeddings=-1\. Name one .* context="):
        context_of(config, "tiny")
    with pytest.raises(ModelError, match=r"\(PreTrainedConfig\), none of them is there"):
        context_of(transformers.PreTrainedConfig(), "tiny")
    model = tiny("llama-gqa")
    model.config.max_position_embeddings = 0
    with pytest.raises(ModelError, match=r"tiny does not say how many tokens it reads at once"):
        wrapped(model)
    assert wrapped(model, context=40).context == 40
    with pytest.raises(InputError, match="context must be a positive number"):
        wrapped(model, context=0)
    with pytest.raises(ModelError, match="a context of 3 tokens, too few"):
        wrapped(model, context=3)


def test_end_tokens_are_read_given_or_asked_for():
    model: Any = tiny("llama-gqa")
    assert wrapped(model).end_ids == (2,)
    model.generation_config.eos_token_id = [7, 5]
    assert wrapped(model).end_ids == (5, 7)
    model.generation_config.eos_token_id = model.config.eos_token_id = None
    with pytest.raises(ModelError, match=r"no token that ends a text.*end_ids=\(\) says"):
        wrapped(model)
    with_end = word_tokenizer(pad_token="<pad>", unk_token="<unk>", eos_token="w9")
    assert wrap_model(model, with_end, name="tiny").end_ids == (9,)
    endless = wrapped(model, end_ids=())
    assert (generate(endless, PROMPTS, IDS, Sampling(new_tokens=5)).lengths == 5).all()
    model.generation_config.eos_token_id = 50256  # of another vocabulary: never written, so the next that is named
    assert wrap_model(model, with_end, name="tiny").end_ids == (9,)
    with pytest.raises(ModelError, match=r"no token that ends a text.*\[50256\] is beyond its 96 tokens"):
        wrapped(model)
    with pytest.raises(ModelError, match=r"ends a text of tiny has the token 96 .* embedding has 96 tokens"):
        wrapped(model, end_ids=(96,))


@pytest.mark.parametrize("lost", ["context", "end tokens"])
def test_a_checkpoint_without_limits_is_refused_and_both_can_be_given(
    lost: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = save_model(wrapped(tiny("llama-gqa")), tmp_path / "model")
    given: dict[str, Any] = {"context": 64} if lost == "context" else {"end_ids": (2,)}
    name = "max_position_embeddings" if lost == "context" else "eos_token_id"
    for config in ("config.json", "generation_config.json"):
        path = folder / config
        path.write_text(
            re.sub(rf'"{name}": \d+', f'"{name}": {"0" if lost == "context" else "null"}', path.read_text())
        )
    with pytest.raises(ModelError, match=r"how many tokens|ends a text"):
        load_model(str(folder))
    assert load_model(str(folder), **given).fingerprint() is not None


# --- tokens without an embedding


def padded_tokenizer() -> Any:
    """A tokenizer that was given a padding token and a word behind the model's back: 98 tokens, for 96 embeddings."""
    tokenizer = word_tokenizer(eos_token="</s>", unk_token="<unk>")
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.add_tokens(["newword"])
    return tokenizer


def test_a_padding_token_without_an_embedding_is_not_read():
    lm = wrap_model(tiny("llama-gqa"), padded_tokenizer(), name="tiny")
    assert lm.tokenizer.pad_token_id == 96
    found = generate(lm, PROMPTS, IDS, Sampling(new_tokens=6))
    assert found.token_ids.tolist() == generate(tiny_lm(), PROMPTS, IDS, Sampling(new_tokens=6)).token_ids.tolist()


def test_a_token_without_an_embedding_is_refused_wherever_it_stands():
    lm = wrap_model(tiny("llama-gqa"), padded_tokenizer(), name="tiny")
    sizes = r"has the token 97 \('newword'\), but the model's embedding has 96 tokens and its tokenizer 98"
    with pytest.raises(ModelError, match=f"the prompt 'w5 newword' {sizes}"):
        generate(lm, ["w5", "w5 newword"], [1, 2], Sampling(new_tokens=2))
    with pytest.raises(ModelError, match=f"the text notes {sizes}"):
        encode_text(lm, Text("w5 w6 newword w7", "notes", "CC0"))
    with pytest.raises(ModelError, match=f"the text {sizes}"):
        perplexity(lm, torch.tensor([5, 6, 97, 7]))
    for prompt, continuation in [((5, 97), (6,)), ((5,), (97,))]:
        with pytest.raises(ModelError, match=f"a (prompt|continuation) {sizes}"):
            continuation_log_likelihoods(lm, [prompt], [continuation])


@pytest.mark.parametrize("where", ["the text judged", "the prompt"])
def test_what_cannot_be_judged_on_is_refused_before_the_search(where: str, monkeypatch: pytest.MonkeyPatch):
    lm = wrap_model(tiny("llama-gqa"), padded_tokenizer(), name="tiny")
    monkeypatch.setattr("fairmend.language.generation.samples.generate", lambda *_, **__: pytest.fail("measured"))
    known, unknown = "w5 w6 w7 w8 w9 w10\n" * 20, "w5 w6 newword w8 w9 w10\n" * 20
    judged = sentences([6] * 8)
    texts = (Text(known, "searched", "CC0"), Text(unknown if where == "the text judged" else known, "judged", "CC0"))
    if where == "the prompt":
        judged[3] = "w4 newword"
    groups = ["a", "b"] * 4
    with pytest.raises(ModelError, match=rf"{where}.* has the token 97 \('newword'\)"):
        repair_model(
            Subject(
                lm,
                prompt_set(sentences([4] * 8), groups, axis="one", source="test", licence="CC0"),
                LexicalScorer(),
                texts,
                judge_prompts=prompt_set(judged, groups, axis="one", source="test", licence="CC0"),
            ),
            RepairSettings(reading=ReadingSettings(tokens=64), sampling=Sampling(new_tokens=2)),
        )


# --- weights that are no numbers


def test_weights_that_are_not_finite_are_named():
    model: Any = tiny("llama-gqa")
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, :3] = float("nan")
    said = r"3 of the 1,536 weights of model\.layers\.1\.mlp\.up_proj\.weight are NaN or infinite"
    for refused in (lambda: wrapped(model), lambda: find_heads(model)):
        with pytest.raises(ModelError, match=said):
            refused()


def test_an_overflow_says_which_dtype_to_try():
    model: Any = tiny("llama-gqa")
    with torch.no_grad():
        model.lm_head.weight *= 300
        model.model.norm.weight *= 300
    assert wrapped(model).dtype == "float32"
    with pytest.raises(ModelError, match="all its weights are finite, so that it overflows float16: try float32"):
        wrapped(model.half())
