"""A user's own prompts, read from a file."""

import json
from pathlib import Path

import pytest

from fairmend.errors import DataError
from fairmend.language.prompt_files import read_prompts


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_csv_file_is_read_with_quotes_line_breaks_and_a_byte_order_mark(tmp_path):
    content = '\ufeffgroup,prompt,extra\r\nold,"Well, he said ""no""\nand left",1\r\n\r\nyoung, She ,2\r\n'
    prompts = read_prompts(write(tmp_path / "age.csv", content), min_group=1)
    assert prompts.texts == ('Well, he said "no"\nand left', " She ")
    assert prompts.group_names == ("old", "young")
    assert (prompts.axis, prompts.source, prompts.licence) == ("age", "age.csv", "not stated")


def test_a_json_lines_file_is_read_with_its_templates(tmp_path):
    rows = [{"prompt": f"{group} {k}\u2028", "group": group, "template": f"t{k}"} for group in "ab" for k in range(4)]
    content = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n\n"
    prompts = read_prompts(write(tmp_path / "own.jsonl", content), axis="x", licence="MIT", min_group=4)
    assert prompts.counts == {"a": 4, "b": 4}
    assert prompts.texts[0] == "a 0\u2028"
    search, judge = prompts.split(seed=0, by="template")
    assert not set(search.columns["template"]) & set(judge.columns["template"])


def test_repeated_prompts_of_a_file_are_noted(tmp_path):
    content = "prompt,group\nHe,a\nHe,b\nShe,b\n"
    assert read_prompts(write(tmp_path / "own.csv", content), min_group=1).notes == (
        "1 of 3 prompts repeat the text of another",
    )


def test_tiny_groups_of_a_file_are_refused_or_dropped(tmp_path):
    rows = "".join(f"p{k},{group}\n" for group, size in {"a": 12, "b": 11, "c": 3}.items() for k in range(size))
    file = write(tmp_path / "own.csv", "prompt,group\n" + rows)
    with pytest.raises(DataError, match=r"fewer than 10 prompts: c \(3\)"):
        read_prompts(file)
    assert read_prompts(file, small="drop").counts == {"a": 12, "b": 11}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.txt", "prompt,group\n", r"must end in \.csv, \.jsonl, \.ndjson"),
        ("p.csv", "", "has no prompts"),
        ("p.csv", "prompt,group\n", "has no prompts"),
        ("p.csv", "Prompt,grp\nHe,a\n", "no column prompt and group; found Prompt, grp .*'Prompt' is not 'prompt'"),
        ("p.csv", "prompt,group,prompt\nHe,a,b\n", "column prompt occurs twice"),
        ("p.csv", "prompt,group\nHe,a\nHe, she,a\n", "line 3: 3 fields, the header has 2"),
        ("p.csv", "prompt,group\nHe,a\n ,b\n", "line 3: prompt must be a text with words, got ' '"),
        ("p.csv", "prompt,group\nHe,\n", "line 2: group must be a text with words"),
        ("p.csv", 'prompt,group\n"He,a\n', "malformed CSV"),
        ("p.csv", "prompt,group\nHe,a\nShe,a\n", r"has 1 with at least 1 prompts: a \(2\)"),
        ("p.csv", b"prompt,group\nHe,a\nf\xfcr,b\n", "line 3: not UTF-8"),
        ("p.jsonl", '{"prompt": "He", "group": "a"}\n{"prompt":\n', "line 2: malformed JSON"),
        ("p.jsonl", "[" * 100_000, "line 1: malformed JSON"),
        ("p.jsonl", '{"prompt": "He", "group": "a"}\n["x"]\n', "line 2: expected an object .* got list"),
        ("p.jsonl", '{"prompt": "He"}\n', "line 1: no column group; found prompt"),
        ("p.jsonl", '{"prompt": 3, "group": "a"}\n', "line 1: prompt must be a text with words, got 3"),
        ("p.jsonl", '{"prompt": "\\ud800", "group": "a"}\n', "no valid Unicode"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_its_line(tmp_path, name, content, message):
    with pytest.raises(DataError, match=message):
        read_prompts(write(tmp_path / name, content), min_group=1)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="cannot read"):
        read_prompts(tmp_path / "none.csv")
