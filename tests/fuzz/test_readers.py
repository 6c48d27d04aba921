"""Whatever a file holds, its reader reads it or says what is wrong with it: nothing but FairmendError comes out.

    FUZZ_EXAMPLES=4000 python -m pytest tests/fuzz

goes on for minutes; without it, it is a look at each reader.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pytest
from damage import damaged, fuzzed, json_text, restated
from hypothesis import given
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel, set_seed
from typer.testing import CliRunner

from fairmend.cli.main import app
from fairmend.errors import FairmendError
from fairmend.language.models.models import LanguageModel, load_model
from fairmend.language.prompts.prompt_files import read_prompts
from fairmend.language.records.checkpoints import read_mask
from fairmend.language.records.results import describe_mask
from fairmend.tabular.data.tables import load_table
from fairmend.tabular.formats.formats import read_network, write_onnx, write_safetensors
from fairmend.tabular.networks.activations import Activation
from fairmend.tabular.networks.networks import Layer, Network

CSV = b'score,years,sex,hired\n1.5,3,F,yes\n-0.5,4,M,no\n"2,5",1,F,no\n0.1,2,M,yes\n'
PROMPTS = b"prompt,group\n" + b"".join(b'"w%d, w5",%s\n' % (n, b"ab"[n % 2 :][:1]) for n in range(4, 40))
LINES = b"".join(json_text({"prompt": f"w{n} w5", "group": "ab"[n % 2]}) + b"\n" for n in range(4, 40))
WORDS = 32


def network() -> Network:
    rng = np.random.default_rng(0)
    relu, identity = Activation.parse("relu"), Activation.parse("identity")
    return Network(
        (Layer(rng.normal(size=(4, 3)), np.zeros(4), relu), Layer(rng.normal(size=(1, 4)), np.zeros(1), identity))
    )


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny GPT-2 with its tokenizer, as save_pretrained writes it."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("checkpoint") / "model"
    backend = Tokenizer(models.WordLevel({f"w{number}": number for number in range(WORDS)}, unk_token="w0"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    set_seed(0)
    config = GPT2Config(vocab_size=WORDS, n_positions=16, n_embd=8, n_layer=1, n_head=2, eos_token_id=1, bos_token_id=1)
    GPT2LMHeadModel(config).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="w1", unk_token="w0").save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def lm(checkpoint: Path) -> LanguageModel:
    return load_model(str(checkpoint), device="cpu")


def refuses_or_reads(read: Callable[[Path], object], file: Path, content: bytes) -> None:
    """Anything but FairmendError, warnings among it, fails the test."""
    file.write_bytes(content)
    with suppress(FairmendError):
        read(file)


@fuzzed
@given(st.data())
def test_csv_tables(desk: Path, data: st.DataObject) -> None:
    refuses_or_reads(load_table, desk / "people.csv", data.draw(damaged(CSV)))


@fuzzed
@given(st.data())
def test_npz_tables(desk: Path, data: st.DataObject) -> None:
    whole = desk / "whole.npz"
    if not whole.exists():
        np.savez(whole, X=np.ones((4, 2), np.float32), y=np.array([0, 1, 0, 1]), sex=np.array(["F", "M", "F", "M"]))

    refuses_or_reads(load_table, desk / "people.npz", data.draw(damaged(whole.read_bytes())))


@fuzzed
@given(st.data())
def test_npz_tables_of_any_arrays(desk: Path, data: st.DataObject) -> None:
    shapes = st.lists(st.integers(0, 3), max_size=3).map(tuple)
    dtypes = st.sampled_from(["f4", "f8", "i8", "u1", "?", "U3", "S2", "c8", "M8[s]", "m8[s]", "f4,i4"])
    arrays = data.draw(
        st.dictionaries(
            st.sampled_from(["X", "y", "feature_names", "sex", "x0", "../up"]),
            st.builds(np.zeros, shapes, dtypes),
            max_size=4,
        )
    )
    np.savez(desk / "people.npz", **arrays)

    with suppress(FairmendError):
        load_table(desk / "people.npz")


@fuzzed
@given(st.data())
def test_safetensors_networks(desk: Path, data: st.DataObject) -> None:
    whole = desk / "whole.safetensors"
    if not whole.exists():
        write_safetensors(network(), whole)
    content = whole.read_bytes()
    if data.draw(st.booleans()):
        length = int.from_bytes(content[:8], "little")
        header = json_text(data.draw(restated(json.loads(content[8 : 8 + length]))))
        content = len(header).to_bytes(8, "little") + header + content[8 + length :]
    else:
        content = data.draw(damaged(content))

    refuses_or_reads(read_network, desk / "network.safetensors", content)


@fuzzed
@given(st.data())
def test_onnx_networks(desk: Path, data: st.DataObject) -> None:
    whole = desk / "whole.onnx"
    if not whole.exists():
        write_onnx(network(), whole)

    refuses_or_reads(read_network, desk / "network.onnx", data.draw(damaged(whole.read_bytes())))


@pytest.mark.parametrize(("name", "content"), [("people.csv", PROMPTS), ("people.jsonl", LINES)])
@fuzzed
@given(data=st.data())
def test_prompts(desk: Path, name: str, content: bytes, data: st.DataObject) -> None:
    refuses_or_reads(read_prompts, desk / name, data.draw(damaged(content)))


@fuzzed
@given(data=st.data())
def test_masks_of_heads(desk: Path, lm: LanguageModel, data: st.DataObject) -> None:
    document = json.loads(json_text(describe_mask(lm.head_map.space().mask([1]), lm)))
    content = (
        json_text(data.draw(restated(document)))
        if data.draw(st.booleans())
        else data.draw(damaged(json_text(document)))
    )

    refuses_or_reads(lambda file: read_mask(file, lm), desk / "mask.json", content)


@pytest.mark.parametrize(
    "name", ["config.json", "generation_config.json", "tokenizer_config.json", "model.safetensors"]
)
@fuzzed
@given(data=st.data())
def test_checkpoints(desk: Path, checkpoint: Path, name: str, data: st.DataObject) -> None:
    folder = desk / "model"
    if not folder.exists():
        shutil.copytree(checkpoint, folder)
    content = (checkpoint / name).read_bytes()
    if name.endswith(".json") and data.draw(st.integers(0, 3)):
        content = json_text(data.draw(restated(json.loads(content))))
    else:
        content = data.draw(damaged(content))

    refuses_or_reads(lambda file: load_model(str(file.parent), device="cpu").head_map, folder / name, content)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished repair of a small network."""
    desk = tmp_path_factory.mktemp("finished")
    rng = np.random.default_rng(1)
    rows = [
        f"{a:.3f},{b:.3f},{c:.3f},{'FM'[n % 2]},{int(a + b > 0)}"
        for n, (a, b, c) in enumerate(rng.normal(size=(200, 3)))
    ]
    (desk / "people.csv").write_text("\n".join(["a,b,c,sex,hired", *rows]))
    write_safetensors(network(), desk / "network.safetensors")
    options = ["--data", str(desk / "people.csv"), "--model", str(desk / "network.safetensors"), "--label", "hired"]
    options += [
        "--sensitive",
        "sex",
        "--drop-sensitive",
        "--positive",
        "1",
        "--encode",
        "none",
        "--states",
        "8",
        "--quiet",
    ]
    made = CliRunner().invoke(app, ["tabular", "repair", *options, "--out", str(desk / "repaired")])
    assert made.exit_code == 0, made.output
    return desk / "repaired"


def ends_well(*arguments: str) -> None:
    """The command did its work or refused; a traceback fails the test."""
    result = CliRunner().invoke(app, [*arguments, "--quiet"])

    assert result.exit_code in (0, 2), (arguments, result.exception)


@pytest.mark.parametrize("command", ["resume", "show", "export"])
@fuzzed
@given(data=st.data())
def test_stores_of_runs(desk: Path, finished: Path, command: str, data: st.DataObject) -> None:
    folder = desk / "repaired"
    shutil.copytree(finished, folder, dirs_exist_ok=True)
    (folder / "run.sqlite").write_bytes(data.draw(damaged((finished / "run.sqlite").read_bytes())))
    (desk / "table.csv").unlink(missing_ok=True)

    ends_well(command, str(folder), *([str(desk / "table.csv")] if command == "export" else []))


@fuzzed
@given(data=st.data())
def test_headers_of_runs(desk: Path, finished: Path, data: st.DataObject) -> None:
    folder = desk / "repaired"
    shutil.copytree(finished, folder, dirs_exist_ok=True)
    (folder / "result.json").unlink()
    with closing(sqlite3.connect(folder / "run.sqlite")) as store, store:
        header = json.loads(store.execute("SELECT json FROM header").fetchone()[0])
        store.execute("UPDATE header SET json = ?", (json.dumps(data.draw(restated(header))),))

    ends_well("resume", str(folder))


@fuzzed
@given(data=st.data())
def test_results_of_runs(desk: Path, finished: Path, data: st.DataObject) -> None:
    folder = desk / "repaired"
    shutil.copytree(finished, folder, dirs_exist_ok=True)
    result = (finished / "result.json").read_bytes()
    restate = data.draw(st.booleans())
    content = json_text(data.draw(restated(json.loads(result)))) if restate else data.draw(damaged(result))
    (folder / "result.json").write_bytes(content)

    ends_well("show", str(folder))
