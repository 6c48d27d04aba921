"""The commands `fairmend lm audit`, `repair`, `apply`, `score` and `diff` on a tiny random model of the user's own."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fairmend.cli.language.inputs import measuring
from fairmend.cli.language.options import MeasureOptions
from fairmend.cli.options import Given
from fairmend.errors import InputError
from fairmend.language.repair.settings import RepairSettings
from fairmend.masks import Space
from fairmend.records import built
from fairmend.settings import settings_of

from ..conftest import Run
from ..language_desk import MEASURE, REPAIR, UNRANKED, llama, lm, logits, press


def repair_that_drops(run: Run, units: list[int]) -> str:
    """A mask of the llama that drops these heads."""
    assert lm(run, "repair", UNRANKED | {"--method": "random", "--out": "made"}, "llama").code == 0
    mask = json.loads(Path("made/mask.json").read_text())
    space = built(mask["space"], Space)
    dropped = {"dropped": units, "dropped_by_site": space.by_site(space.mask(units))}
    Path("mask.json").write_text(json.dumps(mask | dropped))
    return "mask.json"


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
        assert "Held-out items, never seen by the search" in outcome.out
        saved = {path.name for path in Path("out").iterdir()}
        assert saved >= {"model.safetensors", "config.json", "mask.json", "result.json", "README.md", "run.sqlite"}
        dropped = json.loads(Path("out/mask.json").read_text())["dropped"]
        assert len(dropped) == 4
        assert not np.allclose(logits("out"), logits("model"))
        again = lm(run, "apply", {"--out": "again"}, "model", "out/mask.json")
        assert again.code == 0, again.err
        np.testing.assert_array_equal(logits("again"), logits("out"))
        before = {path.name: path.read_bytes() for path in Path("out").iterdir()}
        for taken in ("out", "again"):
            over = lm(run, "apply", {"--out": taken}, "model", "out/mask.json")
            assert over.code == 2
            assert f"{taken} is not empty" in over.message
        assert {path.name: path.read_bytes() for path in Path("out").iterdir()} == before

    def test_the_same_command_goes_on_with_its_run_and_another_is_refused(self, run: Run, office: Path) -> None:
        options = UNRANKED | {"--method": "magnitude", "--json": True}
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

    def test_draws_a_head_map_beside_the_csv(self, run: Run, office: Path) -> None:
        outcome = lm(run, "score", MEASURE | {"--out": "heads.csv"})
        assert [line.strip() for line in outcome.out.splitlines()[-3:]] == ["heads.csv", "heads.png", "heads.svg"]
        assert Path("heads.png").read_bytes().startswith(b"\x89PNG")
        drawn = Path("heads.svg").read_text()
        assert "<!-- perplexity -->" in drawn
        assert "<!-- people bias -->" in drawn
        assert "dropped" not in drawn

    def test_ctrl_c_keeps_what_is_scored_and_the_same_command_goes_on(
        self, run: Run, office: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        options = MEASURE | {"--out": "heads.csv"}
        assert lm(run, "score", options | {"--out": "whole.csv"}).code == 0
        with monkeypatch.context() as pressed:
            pressed.setattr("fairmend.language.scores.screening.first_order_losses", press)
            stopped = lm(run, "score", options)
        assert stopped.code == 130
        assert "kept in heads.csv.unfinished; give the same command again" in stopped.message
        assert not Path("heads.csv").exists()
        for command in ("resume", "show"):
            assert "give its `fairmend lm score` command again" in run(command, "heads.csv.unfinished").message
        other = lm(run, "score", options | {"--seed": 1})
        assert other.code == 2
        assert "heads.csv.unfinished belongs to another run" in other.message
        assert "settings.seed: was 0, is 1" in other.message
        with monkeypatch.context() as drawn:
            # whatever was written is not written again
            drawn.setattr("fairmend.language.generation.generation._decode", None)
            assert lm(run, "score", options).code == 0
        assert Path("heads.csv").read_bytes() == Path("whole.csv").read_bytes()
        assert not Path("heads.csv.unfinished").exists()

    @pytest.mark.parametrize(
        ("place", "kept"), [("head_scores.draw_sample", False), ("screening.first_order_losses", True)]
    )
    def test_input_that_cannot_work_keeps_the_folder_only_if_something_was_scored(
        self, run: Run, office: Path, monkeypatch: pytest.MonkeyPatch, place: str, kept: bool
    ) -> None:
        def refuse(*given: object, **named: object) -> None:
            raise InputError("no such thing")

        monkeypatch.setattr(f"fairmend.language.scores.{place}", refuse)
        assert lm(run, "score", MEASURE | {"--out": "heads.csv"}).code == 2
        assert Path("heads.csv.unfinished").exists() == kept

    def test_a_repair_goes_on_from_its_scores(self, run: Run, office: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert lm(run, "score", MEASURE | {"--loss-scores": "first-order", "--out": "heads.csv"}).code == 0
        whole = lm(run, "repair", REPAIR | {"--json": True}).document
        monkeypatch.setattr("fairmend.language.repair.repair.rank_heads", None)
        given = lm(run, "repair", REPAIR | {"--scores": "heads.csv", "--out": "given", "--json": True}).document
        assert given["outcome"] == whole["outcome"]
        assert given["scores"]["scores"] == whole["scores"]["scores"]

    def test_screened_scores_say_how_valid_first_order_is_and_are_the_repairs_own(self, run: Run, office: Path) -> None:
        shown = lm(run, "score", MEASURE | {"--out": "heads.csv"})
        assert "Validity (rank correlation): first-order loss against exact ablation of " in " ".join(shown.out.split())
        own = lm(run, "repair", REPAIR | {"--loss-scores": "screened", "--alpha": 0.1, "--json": True}).document
        options = {
            "--loss-scores": "screened",
            "--alpha": 0.1,
            "--scores": "heads.csv",
            "--out": "given",
            "--json": True,
        }
        given = lm(run, "repair", REPAIR | options).document
        assert given["scores"]["scores"] == own["scores"]["scores"]
        assert given["scores"]["validity"] == own["scores"]["validity"] != []
        assert "Validity (rank correlation): " in run("show", "out").out


class TestSlice:
    def test_removes_groups_and_computes_the_same(self, run: Run, office: Path) -> None:
        llama("llama")
        dropped = repair_that_drops(run, [0, 1, 4, 5, 6, 10, 11])
        assert lm(run, "apply", {"--out": "zeroed"}, "llama", dropped).code == 0
        outcome = lm(run, "apply", {"--out": "sliced", "--slice": True}, "llama", dropped)
        assert outcome.code == 0, outcome.err
        assert "6 heads are gone" in outcome.out
        assert "50% less key-value cache" in outcome.out
        assert "1 more are zeros" in outcome.out
        np.testing.assert_allclose(logits("sliced"), logits("zeroed"), atol=1e-5)
        sizes = [Path(folder, "model.safetensors").stat().st_size for folder in ("sliced", "zeroed")]
        assert sizes[0] < sizes[1]

    def test_a_mask_that_leaves_a_layer_whole_is_refused(self, run: Run, office: Path) -> None:
        llama("llama")
        outcome = lm(run, "apply", {"--out": "new", "--slice": True}, "llama", repair_that_drops(run, [0, 1]))
        assert outcome.code == 2
        assert "no key-value group can be removed from every layer" in outcome.message
        assert not Path("new").exists()

    def test_a_repair_says_what_it_saved_or_why_not(self, run: Run, office: Path) -> None:
        llama("llama")
        options = UNRANKED | {"--slice": True, "--method": "random", "--json": True}
        found = lm(run, "repair", options, "llama").document
        assert found["slicing"]["done"] is False
        assert "no key-value group" in found["slicing"]["reason"]
        assert "Not sliced" in run("show", "out").out
        assert "Not sliced" in Path("out/README.md").read_text()


class TestExamples:
    """Continuations before and after, those that changed most."""

    def test_are_held_out_and_those_that_changed_most(self, run: Run, office: Path) -> None:
        found = lm(run, "repair", REPAIR | {"--choice": "rule", "--json": True}).document
        pairs = found["examples"]["pairs"]
        sizes = [abs(pair["score_after"] - pair["score_before"]) for pair in pairs]
        assert sizes == sorted(sizes, reverse=True)
        assert 1 <= len(pairs) <= 6
        assert "chosen because they changed most" in found["examples"]["chosen"]
        again = lm(run, "diff", MEASURE | {"--prompt-count": 40, "--json": True}, "model", "out").document
        written = {(pair["prompt"], pair["before"], pair["after"]) for pair in again["pairs"]}
        assert {(pair["prompt"], pair["before"], pair["after"]) for pair in pairs} <= written

    def test_are_shown_and_in_the_card(self, run: Run, office: Path) -> None:
        outcome = lm(run, "repair", REPAIR | {"--choice": "rule"})
        (pair, *_) = json.loads(Path("out/result.json").read_text())["examples"]["pairs"]
        assert repr(pair["after"]) in outcome.out
        assert "chosen because they changed most" in outcome.out
        card = Path("out/README.md").read_text()
        assert pair["prompt"] in card
        assert "Letters within offensive words are starred" in card


class TestDiff:
    def test_shows_what_a_repair_changed(self, run: Run, office: Path) -> None:
        assert lm(run, "repair", REPAIR | {"--choice": "rule"}).code == 0
        outcome = lm(run, "diff", MEASURE | {"--show": 2}, "model", "out")
        assert outcome.code == 0, outcome.err
        assert "continuations differ" in outcome.out
        assert outcome.out.count("  before (") == outcome.out.count("  after  (") == 2
        found = lm(run, "diff", MEASURE | {"--json": True}, "model", "out").document
        sizes = [abs(pair["score_after"] - pair["score_before"]) for pair in found["pairs"]]
        assert sizes == sorted(sizes, reverse=True)
        assert found["perplexity"]["before"] != found["perplexity"]["after"]

    def test_a_model_does_not_differ_from_itself(self, run: Run, office: Path) -> None:
        found = lm(run, "diff", MEASURE | {"--json": True}, "model", "model").document
        assert found["differing"] == 0
        assert found["perplexity"]["ratio"] == 1


def given(**values: Any) -> Given:
    """What a command line gives, by the names of settings, with __ for the dot."""
    return Given(settings_of(RepairSettings), **{name.replace("__", "."): value for name, value in values.items()})


class TestProtocol:
    def test_defaults_are_those_of_the_library(self) -> None:
        assert measuring(MeasureOptions(), 0, given()) == RepairSettings()

    def test_no_limit_is_sayable_and_is_not_the_default(self) -> None:
        found = measuring(MeasureOptions(), 0, given(max_perplexity=None, prompts=None, reading__tokens=None))
        assert (found.max_perplexity, found.prompts, found.reading.tokens) == (None, None, None)
        assert found.subsets == RepairSettings().subsets

    def test_limits_are_named_as_options(self) -> None:
        with pytest.raises(InputError, match="--prompt-count must be at least 4, got 2"):
            measuring(MeasureOptions(), 0, given(prompts=2))

    def test_fasp_is_the_published_protocol(self) -> None:
        found = measuring(MeasureOptions(protocol="fasp"), 1, given())
        assert found == RepairSettings.fasp(seed=1)
        assert (found.group_mean, found.sampling.score, found.sampling.new_tokens) == (
            *("pooled", "prompt+continuation"),
            40,
        )
        assert (found.ties, found.choice, found.max_perplexity, found.reading.kind) == (
            *("published", "rule", None),
            "fasp",
        )

    def test_what_is_given_counts(self) -> None:
        asked = given(prompts=100, sampling__new_tokens=8, reading__tokens=512, sampling__n_samples=2)
        asked |= {"bias_scores": "first-order", "scoring_samples": 5}
        found = measuring(MeasureOptions(protocol="fasp"), 3, asked)
        assert (found.prompts, found.sampling.new_tokens, found.reading.tokens, found.scoring_tokens) == (
            *(100, 8),
            *(512, 512),
        )
        assert (found.sampling.n_samples, found.scoring_samples, found.bias_scores) == (2, 5, "first-order")
        assert found.sampling.max_prompt_tokens == 22

    def test_searches_on_the_valid_part_and_judges_on_the_test_part(
        self, run: Run, office: Path, shared_data: Path
    ) -> None:
        options = MEASURE | {"--prompts": None, "--protocol": "fasp", "--axis": "religion", "--prompt-count": 12}
        options |= {"--holistic-bias": shared_data / "holistic_bias" / "v1.1", "--out": "out", "--json": True}
        found = lm(run, "repair", options | {"--method": "magnitude", "--alpha": 0.3}).document
        sources = [found["data"][name]["source"] for name in ("search_prompts", "judge_prompts")]
        assert ["valid" in source for source in sources] == [True, False]
        assert "test" in sources[1]
        assert "(none)" in found["data"]["search_prompts"]["counts"]
        assert found["settings"]["group_mean"] == "pooled"
        protocol = found["search"]["figures"]["bias"]["protocol"]
        assert "pooled mean" in protocol
        assert "prompt+continuation" in protocol
        assert found["search"]["figures"]["utility"]["protocol"].startswith("fasp")
        notes = found["data"]["judge_prompts"]["notes"]
        assert "left out, because they are searched with" in notes[-1]
