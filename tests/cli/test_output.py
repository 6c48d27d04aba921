"""What is shown, whatever names say and wherever it is written: nothing is carried out, no traceback."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fairmend.cli.display import opened
from fairmend.cli.options import CommonOptions

from .conftest import OWN, REPAIR, Run, arguments, small_table

ESCAPES = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
WOMEN = "\x1b[31mF\x9b2J\u202e[oops] :key: <script>alert(1)</script>|[a](http://evil.example)\n# heading"
MEN = "=M `x` $\\foo$ é 中"


@pytest.fixture
def hostile(desk: Path) -> Path:
    """The desk, where the groups of the table, and its file, have names that terminals and renderers would obey."""
    frame = small_table()
    frame["sex"] = frame["sex"].map({"F": WOMEN, "M": MEN})
    frame.to_csv("$\\foo$.csv", index=False)
    return desk


def process(*words: str | Path, **given: object) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **given.pop("variables", {})}  # type: ignore[dict-item]
    return subprocess.run(
        [sys.executable, "-m", "fairmend", *map(str, words)],
        stdout=given.pop("stdout", subprocess.PIPE),  # type: ignore[arg-type]
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="surrogateescape",
        env=environment,
        check=False,
        **given,  # type: ignore[call-overload]
    )


def test_names_are_shown_on_the_terminal_and_not_obeyed(run: Run, hostile: Path) -> None:
    outcome = run("tabular", "audit", *arguments(OWN | {"--data": "$\\foo$.csv"}))

    assert outcome.code == 0, outcome.err
    for text in (outcome.out, outcome.err):
        assert not ESCAPES.search(text)
        assert (
            r"\x1b[31mF\x9b2J\u202e[oops] :key: <script>alert(1)</script>|[a](http://evil.example)\n# heading" in text
        )
        assert MEN in text


def test_names_in_the_card_and_in_pictures_and_tables_are_only_names(run: Run, hostile: Path) -> None:
    outcome = run("tabular", "repair", *arguments(REPAIR | {"--data": "$\\foo$.csv"}))
    assert outcome.code == 0, outcome.err
    card = Path("out/README.md").read_text(encoding="utf-8")
    assert not ESCAPES.search(card)
    assert "\n# heading" not in card
    for command in ("<script", "[a](http", "](http", "p://evil", " `x`"):
        assert command not in card
    assert r"\\x1b[31mF\\x9b2J\\u202e[oops] :key: &lt;script>" in card
    assert Path("out/result.json").read_text(encoding="utf-8").count("script") > 1
    assert run("show", "out").code == 0

    compared = OWN | {
        "--data": "$\\foo$.csv",
        "--search": "random",
        "--seeds": 2,
        "--states": 60,
        "--out": "compared",
    }
    outcome = run("tabular", "compare", *arguments(compared))
    assert outcome.code == 0, outcome.err
    assert Path("compared/compare.svg").read_bytes().startswith(b"<?xml")


def test_a_file_whose_name_is_not_utf_8_is_repaired_and_gone_on_with(run: Run, desk: Path) -> None:
    name = os.fsdecode(b"d\xff.csv")
    try:
        Path("people.csv").rename(name)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    outcome = run("tabular", "repair", *arguments(REPAIR | {"--data": name}))

    assert outcome.code == 0, outcome.err
    result = json.loads(Path("out/result.json").read_bytes())
    assert result["session"]["request"]["data"].endswith(name)
    assert r"d\\udcff" in Path("out/README.md").read_text(encoding="utf-8")
    assert run("resume", "out").code == 0


@pytest.mark.parametrize(
    ("encoding", "as_json"), [("ascii", False), ("latin-1", False), ("cp1252", False), ("ascii", True)]
)
def test_what_an_encoding_lacks_is_replaced(hostile: Path, encoding: str, as_json: bool) -> None:
    words = arguments(OWN | {"--data": "$\\foo$.csv", "--json": as_json})
    done = process("tabular", "audit", *words, variables={"PYTHONIOENCODING": encoding})

    assert done.returncode == 0, done.stderr
    if as_json:
        assert {group["group"] for group in json.loads(done.stdout)["splits"]["test"]["groups"]} == {
            f"sex={WOMEN}",
            f"sex={MEN}",
        }
    else:
        assert r"\u4e2d" in done.stdout
        assert "─" not in done.stdout


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished repair."""
    from typer.testing import CliRunner

    from fairmend.cli.main import app
    from fairmend.tabular.formats.formats import write_safetensors

    from .conftest import small_network

    desk = tmp_path_factory.mktemp("finished")
    small_table().to_csv(desk / "people.csv", index=False)
    write_safetensors(small_network(), desk / "net.safetensors")
    files = {"--model": desk / "net.safetensors", "--data": desk / "people.csv", "--out": desk / "out"}
    assert CliRunner().invoke(app, ["tabular", "repair", *arguments(REPAIR | files)]).exit_code == 0
    return desk / "out"


SAID = (["show", "DIR"], ["show", "DIR", "--json"], ["--help"], ["--version"])


@pytest.mark.parametrize("words", SAID, ids=" ".join)
def test_a_standard_output_that_cannot_be_written_gives_a_message(finished: Path, words: list[str]) -> None:
    if not os.access("/dev/full", os.W_OK):
        pytest.skip("there is no /dev/full here")
    with open("/dev/full", "w") as full:
        done = process(*(finished if word == "DIR" else word for word in words), stdout=full)

    assert done.returncode == 1
    assert done.stderr.startswith("Error: standard output cannot be written (No space left on device)")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("words", SAID, ids=" ".join)
def test_a_reader_that_goes_away_is_no_error(finished: Path, words: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = process(*(finished if word == "DIR" else word for word in words), stdout=writing)
    finally:
        os.close(writing)

    assert done.returncode in (1, 141)
    assert done.stderr == ""


@pytest.mark.parametrize("streams", ["2", "0, 1, 2"])
def test_closed_streams_end_no_repair(desk: Path, streams: str) -> None:
    words = ["tabular", "repair", *arguments(REPAIR | {"--states": 60})]
    closing = f"import os, sys; [os.close(n) for n in ({streams},)]; os.execv(sys.executable, sys.argv[1:])"
    command = [sys.executable, "-c", closing, sys.executable, "-m", "fairmend", *words]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

    assert done.returncode == (1 if "1" in streams else 0)
    assert "Traceback" not in done.stderr
    assert json.loads(Path("out/result.json").read_bytes())["splits"]
    assert Path("out/run.sqlite").read_bytes().startswith(b"SQLite format 3")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (UnicodeEncodeError("utf-8", "d\udcff", 1, 2, "surrogates not allowed"), (r"'d\udcff'", "rename")),
        (RecursionError("maximum recursion depth exceeded"), ("nested too deeply", "fairmend doctor")),
        (
            MemoryError("Unable to allocate 3.1 EiB"),
            ("not enough memory (Unable to allocate 3.1 EiB)", "smaller batches"),
        ),
        (OSError(errno.ENOSPC, "No space left on device", "/x/y"), ("'/x/y' cannot be", "No space left", "Make room")),
        (
            PermissionError(errno.EACCES, "Permission denied", b"\xff"),
            (r"cannot be read or written: Permission denied",),
        ),
    ],
)
def test_what_the_machine_cannot_do_is_said_in_a_line(run: Run, monkeypatch, error: Exception, words) -> None:
    monkeypatch.setattr("fairmend.cli.doctor._checks", failing(error))
    outcome = run("doctor", "--json")

    assert outcome.code == 2
    assert all(word in outcome.message for word in words)
    assert set(outcome.document["error"]) == {"kind", "message"}


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("x"), FileNotFoundError(errno.ENOENT, "No such file")])
def test_a_defect_keeps_its_traceback_and_says_what_to_do(run: Run, monkeypatch, error: Exception) -> None:
    monkeypatch.setattr("fairmend.cli.doctor._checks", failing(error))
    outcome = run("doctor")

    assert outcome.exception is error
    assert "defect of fairmend" in error.__notes__[0]
    assert "`fairmend doctor`" in error.__notes__[0]


def failing(error: Exception):
    def fail(*_: object) -> None:
        raise error

    return fail


def test_progress_and_notes_that_cannot_be_written_do_not_end_a_search(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        encoding = "utf-8"

        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        def flush(self) -> None:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

        def isatty(self) -> bool:
            return False

    monkeypatch.setattr(sys, "stderr", Full())
    with opened(CommonOptions()) as screen:
        screen.note("a note")
        screen.warn("a warning")
        screen.steps.start(10, "a step")
        monkeypatch.setattr(screen.steps, "_due", 0.0)
        screen.steps.update(5, 10)


class TestLanguage:
    def test_names_of_groups_are_shown_and_not_obeyed(self, run: Run, office: Path) -> None:
        from .language_desk import REPAIR as OPTIONS
        from .language_desk import lm, write_prompts

        write_prompts(group=WOMEN)
        Path("people.csv").rename("$\\foo$.csv")
        outcome = lm(run, "repair", OPTIONS | {"--prompts": "$\\foo$.csv", "--choice": "rule"})

        assert outcome.code == 0, outcome.err
        card = Path("out/README.md").read_text(encoding="utf-8")
        for text in (outcome.out, outcome.err, card):
            assert not ESCAPES.search(text)
        assert r"[oops] :key: <script>alert(1)</script>" in outcome.out
        for command in ("<script", "](http", "p://evil", "\n# heading"):
            assert command not in card
        assert r"## Held-out figures: \$\\foo\$ (repaired for)" in card

    def test_a_folder_that_no_tokenizer_can_be_saved_in_is_refused_before_the_search(
        self, run: Run, office: Path
    ) -> None:
        from .language_desk import REPAIR as OPTIONS
        from .language_desk import lm

        outcome = lm(run, "repair", OPTIONS | {"--out": os.fsdecode(b"d\xff")})

        assert outcome.code == 2
        assert r"'d\udcff'" in outcome.message
        assert "Name another folder" in outcome.message
        assert not os.path.lexists(b"d\xff")

    def test_names_of_models_are_shown_and_not_obeyed(self, run: Run, office: Path) -> None:
        from .language_desk import MEASURE, gpt2, lm

        gpt2("a[/x] :key: \x1b[31m")
        outcome = lm(run, "diff", MEASURE | {"--quiet": False, "--show": 1}, "a[/x] :key: \x1b[31m", "model")

        assert outcome.code == 0, outcome.err
        assert not ESCAPES.search(outcome.out + outcome.err)
