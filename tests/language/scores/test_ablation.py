"""Exact losses without each head, against one masked run of the whole model per head."""

import math

import numpy as np
import pytest
import torch
from architectures import ARCHITECTURES
from tiny_lm import tiny_lm

from fairmend.errors import InputError, ModelError
from fairmend.language.heads.gates import masked
from fairmend.language.measurement.perplexity import PerplexityProtocol, perplexity, perplexity_ratio
from fairmend.language.models.models import LanguageModel, weights_digest
from fairmend.language.scores.ablation import masked_losses
from fairmend.language.scores.layer_resume import layer_resume
from fairmend.language.scores.mask_runs import single_heads
from fairmend.masks import Mask

PROTOCOL = PerplexityProtocol("standard", 16, 12)


def text(n: int = 41) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(4, 96, n))


def one_off(lm: LanguageModel, head: int) -> Mask:
    return lm.head_map.space().mask([head])


def hooks_on(lm: LanguageModel) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in lm.model.modules())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_head_alone_gives_the_perplexity_of_a_masked_run(name: str) -> None:
    lm = tiny_lm(name)
    found = masked_losses(lm, text(), PROTOCOL)
    assert found.method == "layer resume", found.note
    for head in (0, lm.head_map.n_heads // 2, lm.head_map.n_heads - 1):
        with masked(lm.model, one_off(lm, head)):
            naive = perplexity(lm, text(), "standard", 16, 12)
        assert found.perplexity[head] == pytest.approx(naive.value, rel=1e-5)
        assert found.standard_error[head] == pytest.approx(naive.standard_error, rel=1e-3)


def test_masks_of_several_heads_resume_from_their_first_layer() -> None:
    lm = tiny_lm("llama-gqa", num_hidden_layers=4)
    gates = torch.ones(5, 16)
    for mask, heads in enumerate([[], [15], [5, 12], [0, 1, 2, 3], [8, 9]]):
        gates[mask, heads] = 0
    found = masked_losses(lm.with_batch_size(4), text(), PROTOCOL, gates)
    whole = masked_losses(lm, text(), PROTOCOL, gates, resume=False)
    assert (found.method, whole.method) == ("layer resume", "masking")
    np.testing.assert_allclose(found.without, whole.without, rtol=1e-5)
    np.testing.assert_allclose(found.without[0], found.before, rtol=1e-5)
    np.testing.assert_allclose(found.before, whole.before, rtol=1e-5)


def test_the_batch_size_changes_nothing() -> None:
    lm = tiny_lm("gpt2")
    figures = [masked_losses(lm.with_batch_size(rows), text(), PROTOCOL).without for rows in (1, 3, 64)]
    np.testing.assert_allclose(figures[0], figures[1], rtol=1e-5)
    np.testing.assert_allclose(figures[0], figures[2], rtol=1e-5)


@pytest.mark.parametrize("kind", ["standard", "fasp"])
def test_effects_are_the_paired_changes_of_the_loss(kind: str) -> None:
    lm = tiny_lm("qwen2")
    protocol = PerplexityProtocol(kind, 8, 8)  # type: ignore[arg-type]
    found = masked_losses(lm, text(), protocol)
    before = perplexity(lm, text(), kind, 8, 8)  # type: ignore[arg-type]
    assert found.perplexity_before == pytest.approx(before.value, rel=1e-6)
    for head in range(3):
        with masked(lm.model, one_off(lm, head)):
            after = perplexity(lm, text(), kind, 8, 8)  # type: ignore[arg-type]
        ratio = perplexity_ratio(before, after)
        assert math.exp(found.effect[head]) == pytest.approx(ratio.value, rel=1e-5)
        assert found.effect_error[head] == pytest.approx(ratio.standard_error / ratio.value, rel=1e-3, abs=1e-7)


def test_the_model_is_as_before_also_after_an_error() -> None:
    lm = tiny_lm("gpt2")
    digest = weights_digest(lm.model)
    hooks = hooks_on(lm)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    masked_losses(lm, text(), PROTOCOL)
    with pytest.raises(KeyboardInterrupt):
        masked_losses(lm, text(), PROTOCOL, progress=stop)
    resume, _ = layer_resume(lm)
    assert resume is not None
    resume.capture(lambda: lm.model(text()[None, :8]))
    with pytest.raises(ModelError), resume.resumed(2, 1):
        raise ModelError("")
    assert weights_digest(lm.model) == digest
    assert hooks_on(lm) == hooks
    assert not any("forward" in module.__dict__ for module in lm.model.modules())


def test_a_mask_that_is_on_the_model_stays_in_force() -> None:
    lm = tiny_lm("gpt2")
    both = torch.ones(1, 8)
    both[0, [1, 6]] = 0
    with masked(lm.model, one_off(lm, 1)):
        found = masked_losses(lm, text(), PROTOCOL, single_heads(8)[6:7])
    np.testing.assert_allclose(found.without, masked_losses(lm, text(), PROTOCOL, both).without, rtol=1e-5)


def test_layers_that_speak_to_each_other_behind_the_scenes_are_run_whole() -> None:
    lm = tiny_lm("llama-mha", num_hidden_layers=3)
    first, _, last = lm.model.model.layers
    seen = {}
    first.mlp.register_forward_hook(lambda module, args, output: seen.update(value=output))
    last.mlp.register_forward_hook(lambda module, args, output: output + seen.pop("value"))
    found = masked_losses(lm, text(), PROTOCOL)
    assert found.method == "masking"
    assert "layer" in found.note
    with masked(lm.model, one_off(lm, 9)):
        assert found.perplexity[9] == pytest.approx(perplexity(lm, text(), "standard", 16, 12).value, rel=1e-5)


def test_progress_ends_at_the_total() -> None:
    seen: list[tuple[int, int]] = []
    masked_losses(tiny_lm("gpt2"), text(), PROTOCOL, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (8 * len(PROTOCOL.windows(41)),) * 2
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


def test_gates_of_another_shape_are_refused() -> None:
    with pytest.raises(InputError, match=r"need \(n_masks, 8\)"):
        masked_losses(tiny_lm("gpt2"), text(), PROTOCOL, torch.ones(8))


def test_more_text_makes_the_ranking_more_reliable() -> None:
    lm = tiny_lm("gpt2")
    short, long = (
        masked_losses(lm, text(n), PerplexityProtocol("standard", 8, 8)).reliability(np.random.default_rng(0))
        for n in (64, 1024)
    )
    assert short.value < long.value <= 1
    assert long.unit == "windows"
