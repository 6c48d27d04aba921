"""The commands on sound input: audit, repair, resume, show, fetch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import equalized_odds_difference
from sklearn.metrics import accuracy_score, f1_score

from fairmend.cli.tabular import inputs
from fairmend.tabular.data import sources
from fairmend.tabular.formats.formats import read_network

from ..conftest import OWN, REPAIR, SAVED, arguments, small_table


def rows(text):
    """Lines of tables: a table that does not fit breaks its lines."""
    return [line for line in text.splitlines() if "─" not in line and line.strip()]


class TestAudit:
    @pytest.mark.parametrize(
        ("setting", "seed"), [("compas_race", 42), ("compas_sex", 123), ("default_sex", 123), ("bank_age", 42)]
    )
    def test_gives_the_published_networks_figures(self, run, desk, shared_data, setting, seed):
        table, _ = setting.split("_")
        outcome = run(
            *("tabular", "audit", "--preset", setting.replace("_", "-")),
            *("--model", shared_data / f"neufair/models/{table}-{seed}.safetensors"),
            *("--data", shared_data / f"tabular/{table}.csv.gz"),
            *("--split-seed", seed, "--draws", 100, "--json"),
        )
        assert outcome.code == 0, outcome.err
        baselines = json.loads((shared_data / "neufair/baselines.json").read_text())[setting]
        (published,) = [row for row in baselines if row["seed"] == seed]
        for split, short in (("train", "train"), ("validation", "val"), ("test", "test")):
            figures = outcome.document["splits"][split]
            assert figures["value"]["value"] == pytest.approx(published[f"{short}_eod"], abs=1e-7)
            assert figures["utilities"]["f1"]["value"] == pytest.approx(published[f"{short}_f1"], abs=1e-7)
            assert figures["utilities"]["accuracy"]["value"] == pytest.approx(published[f"{short}_acc"], abs=1e-7)
            assert figures["n"] == published[f"{short}_n"]
            for code, group in enumerate(figures["groups"]):
                count, hits = published[f"{short}_groups"][f"g{code}y1"]
                assert group["positives"] == count
                assert group["true_positive_rate"] == pytest.approx(hits / count, abs=1e-12)

    def test_of_a_persons_own_table_agrees_with_fairlearn(self, run, desk):
        document = run("tabular", "audit", *arguments(OWN), "--json").document
        frame = small_table()
        X = frame[["score", "years", "test"]].to_numpy()
        predicted = read_network("net.safetensors").predict(X.astype(np.float32))
        y = (frame["hired"] == "yes").to_numpy(dtype=int)
        whole = sum(document["splits"][split]["n"] for split in ("train", "validation", "test"))
        assert whole == len(frame)
        from fairmend.tabular.data.datasets import split_rows

        rows = split_rows(len(frame), 42)["test"]
        found = document["splits"]["test"]
        expected = equalized_odds_difference(y[rows], predicted[rows], sensitive_features=frame["sex"].iloc[rows])
        assert found["value"]["value"] == pytest.approx(expected)
        assert found["utilities"]["f1"]["value"] == pytest.approx(f1_score(y[rows], predicted[rows]))
        assert found["utilities"]["accuracy"]["value"] == pytest.approx(accuracy_score(y[rows], predicted[rows]))
        assert document["request"]["label"] == "hired"
        assert Path(document["request"]["data"]).is_absolute()

    def test_says_in_a_table_and_in_words_what_it_found(self, run, desk):
        outcome = run("tabular", "audit", *arguments(OWN))
        assert outcome.code == 0
        for word in ("EOD [95%]", "floor", "excess", "p-value", "TPR", "FPR", "sex=F", "sex=M", "Accuracy"):
            assert word in outcome.out
        assert "a network without any group difference would show" in outcome.out
        assert "Note:" in outcome.err
        assert run("tabular", "audit", *arguments(OWN), "--quiet").err == ""

    def test_and_a_repair_fit_into_an_ordinary_terminal(self, run, desk, monkeypatch):
        found = [run("tabular", "audit", *arguments(OWN)), run("tabular", "repair", *arguments(REPAIR))]
        monkeypatch.setenv("COLUMNS", "80")
        narrow = [run("tabular", "audit", *arguments(OWN)), run("show", "out")]
        for wide, fitted in zip(found, narrow, strict=True):
            assert len(rows(fitted.out)) == len(rows(wide.out.split("Written:")[0]))

    @pytest.mark.parametrize("ending", [".csv.gz", ".tsv", ".parquet", ".npz"])
    def test_reads_every_kind_of_table(self, run, desk, ending):
        expected = run("tabular", "audit", *arguments(OWN), "--json").document["splits"]
        frame, path = small_table(), f"people{ending}"
        if ending == ".parquet":
            frame.to_parquet(path)
        elif ending == ".npz":
            names = ["score", "years", "test"]
            columns = {"y": frame["hired"].to_numpy(dtype="U3"), "sex": frame["sex"].to_numpy(dtype="U1")}
            np.savez(path, X=frame[names].to_numpy(), feature_names=np.array(names), **columns)
        else:
            frame.to_csv(path, index=False, sep="\t" if ending == ".tsv" else ",")
        changes = {"--data": path} | ({"--label": "y"} if ending == ".npz" else {})
        assert run("tabular", "audit", *arguments(OWN | changes), "--json").document["splits"] == expected

    def test_takes_onnx_a_split_column_crossed_groups_and_chosen_features(self, run, desk):
        frame = small_table()
        frame.insert(0, "race", np.resize(["A", "B"], len(frame)))
        frame["part"] = np.resize(["train", "train", "train", "validation", "test"], len(frame))
        frame.to_csv("people.csv", index=False)
        changes = {
            "--model": "net.onnx",
            "--sensitive": "sex,race",
            "--split-column": "part",
            "--features": "score,years,test",
            "--positive": "yes",
        }
        document = run("tabular", "audit", *arguments(OWN | changes), "--json").document
        assert document["splits"]["test"]["n"] == len(frame) / 5
        names = [group["group"] for group in document["splits"]["test"]["groups"]]
        assert names == ["sex=F & race=A", "sex=F & race=B", "sex=M & race=A", "sex=M & race=B"]

    def test_same_seed_same_document(self, run, desk):
        words = ("tabular", "audit", *arguments(OWN), "--json")
        assert run(*words, "--seed", 5).out == run(*words, "--seed", 5).out
        assert run(*words, "--seed", 5).out != run(*words, "--seed", 6).out

    def test_encodes_text_when_told(self, run, desk):
        from fairmend.tabular.formats.formats import write_safetensors

        from ..conftest import small_network

        write_safetensors(small_network(n_features=4), "net.safetensors")
        changes = {"--encode": "standard", "--drop-sensitive": False}
        outcome = run("tabular", "audit", *arguments(OWN | changes), "--json")
        assert outcome.document["data"]["features"] == ["score", "years", "test", "sex=M"]


class TestRepair:
    def test_saves_a_result_and_shows_unseen_rows_first(self, run, desk):
        outcome = run("tabular", "repair", *arguments(REPAIR))
        assert outcome.code == 0, outcome.err
        assert {path.name for path in Path("out").iterdir()} == SAVED
        out = outcome.out
        assert out.index("test split, 80 rows: never seen by the search") < out.index("On the search's own rows")
        assert out.index("On the search's own rows") < out.index("seen by the search, overstates the gain")
        for word in ("before [95%]", "after [95%]", "change [95%]", "floor", "p-value", "Dropped", "out/network.onnx"):
            assert word in out

    def test_prints_one_json_document_and_nothing_else(self, run, desk):
        outcome = run("tabular", "repair", *arguments(REPAIR), "--json", "--quiet")
        assert outcome.err == ""
        document = outcome.document
        files = document.pop("files")
        assert document == json.loads(Path("out/result.json").read_text())
        assert Path(files["network"]).is_file()
        assert run("show", "out", "--json").document == document

    def test_passes_every_option_on(self, run, desk):
        options = {
            "--search": "random-walk",
            "--seconds": 20,
            "--min-drop": 1,
            "--max-drop": 4,
            "--utility": "accuracy",
            "--objective": "demographic_parity_difference",
            "--keep": 0.9,
            "--penalty": 2,
            "--drop": "weights",
            "--search-on": "validation",
            "--threshold": "fixed",
            "--restarts": 2,
            "--chains": 3,
            "--seed": 7,
            "--slim": True,
        }
        outcome = run("tabular", "repair", *arguments(REPAIR | options), "--json")
        assert outcome.code == 0, outcome.err
        settings = outcome.document["settings"]
        for option, value in options.items():
            if option != "--slim":
                assert settings[option[2:].replace("-", "_")] == value, option
        assert settings["states"] == 300
        assert Path("out/slim.safetensors").is_file()

    def test_writes_beside_the_working_directory_without_out(self, run, desk):
        assert run("tabular", "repair", *arguments(OWN | {"--states": 20})).code == 0
        assert Path("fairmend-people/result.json").is_file()

    def test_says_so_when_nothing_fairer_is_found(self, run, desk):
        outcome = run("tabular", "repair", *arguments(REPAIR | {"--keep": 1, "--max-drop": 0, "--threshold": "fixed"}))
        assert outcome.code == 0, outcome.err
        assert "Nothing fairer was found" in outcome.out
        assert "Dropped" not in outcome.out

    def test_uses_no_more_threads_than_there_are_processors(self, run, desk, monkeypatch):
        monkeypatch.setattr("os.cpu_count", lambda: 1)
        outcome = run("tabular", "repair", *arguments(REPAIR | {"--threads": 64}))
        assert outcome.code == 0
        assert "--threads 64 is more than the processors here: 1 are used" in outcome.err

    def test_the_same_command_again_gives_the_same_answer(self, run, desk):
        first = run("tabular", "repair", *arguments(REPAIR), "--json").document
        again = run("tabular", "repair", *arguments(REPAIR), "--json").document
        assert {**first, "session": None} == {**again, "session": None}

    @pytest.mark.parametrize("search", ["genetic", "random", "exhaustive", "dice"])
    def test_offers_every_search(self, run, desk, search):
        options = {"--search": search, "--states": 150, "--max-drop": 2}
        outcome = run("tabular", "repair", *arguments(REPAIR | options), "--json")
        assert outcome.code == 0, outcome.err
        assert outcome.document["settings"]["search"] == search


class TestPresets:
    @pytest.fixture
    def tiny(self, monkeypatch, desk):
        """A preset whose table is made here, so that nothing is fetched and training takes a blink."""
        rng = np.random.default_rng(0)
        frame = pd.DataFrame(rng.random((300, 13)).round(3), columns=[f"c{i}" for i in range(13)])
        frame["sex"], frame["label"] = rng.integers(0, 2, 300), (frame["c1"] > 0.5).astype(int)
        frame = frame[["sex", "c1", *[f"c{i}" for i in range(3, 13)], "label"]]
        from dataclasses import replace

        from fairmend.tabular.data import presets

        published = presets.PRESETS["compas-sex"]
        features = [name for name in frame if name != "label"]
        made = replace(
            published,
            table=replace(published.table, rows=300, encoding=dict.fromkeys(features, "min-max"), notes=()),
            hidden=(6,),
            max_drop=4,
        )
        monkeypatch.setattr(presets, "PRESETS", {**presets.PRESETS, "compas-sex": made})
        monkeypatch.setattr(presets.RawTable, "read", lambda *_: frame)
        Path("compas.csv").write_text("here")
        return ("--preset", "compas-sex", "--data", "compas.csv")

    def test_train_their_own_network_and_keep_it(self, run, tiny, desk, monkeypatch):
        first = run("tabular", "audit", *tiny, "--json")
        assert first.code == 0, first.err
        assert "network of 6 neurons trained on the train split" in first.err
        (kept,) = (desk / "cache" / "networks").iterdir()
        assert first.document["network"] == read_network(kept).digest()
        monkeypatch.setattr(inputs, "_train", None)  # a second time it is not trained
        assert run("tabular", "audit", *tiny, "--json").document["splits"] == first.document["splits"]

    def test_a_run_on_a_network_trained_just_now_is_resumed_on_the_one_kept(self, run, tiny, desk):
        assert run("tabular", "repair", *tiny, "--states", 20, "--out", "out").code == 0
        Path("out/result.json").unlink()
        outcome = run("resume", "out")
        assert outcome.code == 0, outcome.err

    def test_another_split_seed_trains_another_network(self, run, tiny, desk):
        digests = [
            run("tabular", "audit", *tiny, "--split-seed", seed, "--json").document["network"] for seed in (1, 2)
        ]
        assert len(set(digests)) == 2
        assert len(list((desk / "cache" / "networks").iterdir())) == 2

    def test_a_damaged_network_in_the_cache_is_trained_anew(self, run, tiny, desk):
        first = run("tabular", "audit", *tiny, "--json")
        (kept,) = (desk / "cache" / "networks").iterdir()
        kept.write_bytes(b"broken")
        again = run("tabular", "audit", *tiny, "--json")
        assert "damaged and is trained anew" in again.err
        assert again.document["network"] == first.document["network"]

    def test_a_cache_that_cannot_be_written_is_no_obstacle(self, run, tiny, desk, monkeypatch):
        (desk / "cache").write_text("a file, where a folder is needed")
        outcome = run("tabular", "audit", *tiny)
        assert outcome.code == 0, outcome.err
        assert "could not be kept in the cache" in outcome.err

    def test_bring_the_published_limits_unless_told_otherwise(self, run, tiny, desk):
        def limits(*words):
            outcome = run("tabular", "repair", *tiny, "--states", 20, "--json", *words)
            assert outcome.code == 0, outcome.err
            return outcome.document["settings"]

        assert (limits("--out", "a")["min_drop"], limits("--out", "a")["max_drop"]) == (2, 4)
        assert limits("--out", "b", "--max-drop", 3)["max_drop"] == 3
        assert limits("--out", "c", "--search", "dice")["min_drop"] == 0
        assert run("tabular", "repair", *tiny, "--states", 20).code == 0
        assert Path("fairmend-compas-sex/result.json").is_file()

    def test_fetch_says_where_the_table_is(self, run, desk):
        folder = desk / "cache" / "tabular"
        folder.mkdir(parents=True)
        (folder / "h192.csv").write_text("the user's own copy")
        assert sources.RAW_TABLES["meps16"].names[0]
        outcome = run("fetch", "meps16", "--json")
        assert outcome.document == {"name": "meps16", "path": str(folder / "h192.csv"), "bytes": 19}
        assert str(folder / "h192.csv") in run("fetch", "meps16").out


def test_a_defect_keeps_its_traceback_and_exit_code_1(run, desk, monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr("fairmend.tabular.repair.audit.audit", broken)
    outcome = run("tabular", "audit", *arguments(OWN))
    assert outcome.code == 1
    assert isinstance(outcome.exception, ZeroDivisionError)


def test_a_real_process_refuses_bad_input_with_exit_code_2_and_no_traceback(desk):
    words = arguments(OWN | {"--label": "hird"})
    command = [sys.executable, "-m", "fairmend", "tabular", "audit", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("Error: there is no column 'hird': did you mean hired?")
    assert "Traceback" not in done.stderr
