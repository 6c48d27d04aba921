"""A user's own prompts, read from a file."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairmend.errors import DataError
from fairmend.language.prompts.prompt_files import read_prompts


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


ROWS = [("Well, he said", "a"), ("She; too", "b"), ("They\tsay", "b")]


@pytest.mark.parametrize("name", ["p.csv", "p.tsv"])
@pytest.mark.parametrize("mark", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_commas_semicolons_and_tabs_separate_as_in_tables(tmp_path, name, mark, end):
    lines = [mark.join(f'"{cell}"' for cell in row) for row in [("prompt", "group"), *ROWS]]
    prompts = read_prompts(write(tmp_path / name, end.join(lines)), min_group=1)
    assert prompts.texts == tuple(prompt for prompt, _ in ROWS)
    assert prompts.counts == {"a": 1, "b": 2}


def test_rows_of_empty_cells_are_no_prompts(tmp_path):
    content = ",,\nprompt,group,\nHe,a,\n,,\nShe,b,\n , ,\n,\n,,,,\n"
    assert read_prompts(write(tmp_path / "p.csv", content), min_group=1).texts == ("He", "She")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("name", ["p.csv", "p.jsonl"])
def test_a_byte_order_mark_tells_the_encoding_and_is_no_text(tmp_path, name, encoding):
    lines = ["prompt,group", "für,a", "日本,b"]
    if name == "p.jsonl":
        lines = [json.dumps(dict(zip(("prompt", "group"), line.split(","), strict=True))) for line in lines[1:]]
    raw = "\n".join(lines).encode(encoding)
    assert read_prompts(write(tmp_path / name, raw), min_group=1).texts == ("für", "日本")


def test_whole_numbers_of_json_are_the_groups_that_csv_has(tmp_path):
    huge = "9" * 5000
    groups = ["0", "-3", "12", huge]
    rows = "".join(f'{{"prompt": "p{group}", "group": {group}, "template": {group}}}\n' for group in groups)
    table = "prompt,group,template\n" + "".join(f"p{group},{group},{group}\n" for group in groups)
    from_json = read_prompts(write(tmp_path / "p.jsonl", rows), min_group=1)
    from_csv = read_prompts(write(tmp_path / "p.csv", table), min_group=1)
    assert from_json.fingerprint() | {"source": ""} == from_csv.fingerprint() | {"source": ""}
    assert from_json.columns == from_csv.columns
    assert {type(name) for name in from_json.group_names} == {str}


def test_control_characters_and_long_lines_are_data(tmp_path):
    texts = ("a\0b", "\x1b[31mred\x9b\u202e", "word " * 100_000)
    for name, content in {
        "p.csv": "prompt,group\n" + "".join(f'"{text}",{number}\n' for number, text in enumerate(texts)),
        "p.jsonl": "\n".join(json.dumps({"prompt": text, "group": k}) for k, text in enumerate(texts)),
    }.items():
        assert read_prompts(write(tmp_path / name, content), min_group=1).texts == texts


def test_a_name_that_is_no_unicode_can_be_written_into_results(tmp_path):
    file = tmp_path / "p\udcff.csv"
    prompts = read_prompts(write(file, "prompt,group\nHe,a\nShe,b\n"), min_group=1)
    assert (prompts.axis, prompts.source) == ("p?", "p?.csv")


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "p.csv")
    with pytest.raises(DataError, match="not an ordinary file"):
        read_prompts(tmp_path / "p.csv")


PIECES = [
    *(b"prompt", b"group", b"template", b"He ", b"\xc3\xbc", b'"', b",", b";", b"\t", b"\n", b"\r", b"\0", b" "),
    *(b"{", b"}", b"[" * 3000, b":", b"\\", b"\\ud800", b"1", b"9" * 5000, b"1e999", b"null", b"true", b"NaN"),
    *(b'{"prompt": "He", "group": 1}\n', b"prompt,group\nHe,a\n", b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf", b"\xff"),
]


@given(pieces=st.lists(st.sampled_from(PIECES), max_size=30), suffix=st.sampled_from([".csv", ".tsv", ".jsonl"]))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_whatever_a_file_holds_only_errors_of_ours_come_out_and_all_text_can_be_written(
    tmp_path_factory, pieces, suffix
):
    file = write(tmp_path_factory.getbasetemp() / f"any{suffix}", b"".join(pieces))
    try:
        prompts = read_prompts(file, min_group=1)
    except DataError as error:
        str(error).encode()
    else:
        "".join([*prompts.texts, *prompts.group_names, *prompts.columns.get("template", ())]).encode()
        assert len(prompts) == sum(prompts.counts.values()) >= 2


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
        ("p.txt", "prompt,group\n", r"must end in \.csv, \.tsv, \.jsonl, \.ndjson"),
        ("p.csv", "", "has no prompts"),
        ("p.csv", "prompt,group\n", "has no prompts"),
        ("p.csv", "Prompt,grp\nHe,a\n", "no column prompt and group; found Prompt, grp .*'Prompt' is not 'prompt'"),
        ("p.csv", "prompt,group,prompt\nHe,a,b\n", "column prompt occurs twice"),
        ("p.csv", "prompt,group\nHe,a\nHe, she,a\n", "line 3: 3 fields, the header has 2"),
        ("p.csv", "prompt,group\nHe,a\n ,b\n", "line 3: prompt must be a text with words, got ' '"),
        ("p.csv", "prompt,group\nHe,\n", "line 2: group must be a text with words"),
        ("p.csv", 'prompt,group\n"He,a\n', "malformed CSV"),
        ("p.csv", "prompt,group\nHe,a\nShe,a\n", r"has 1 with at least 1 prompts: a \(2\)"),
        ("p.csv", b"prompt,group\nHe,a\nf\xfcr,b\n", "line 3: not UTF-8 .*save the file as UTF-8"),
        ("p.csv", b"\xff\xfep\0r", "line 1: not UTF-16 .*save the file as UTF-8"),
        ("p.csv", "prompt,group\nHe,a\n".encode("utf-16-le"), "UTF-16 without a mark: save the file as UTF-8"),
        ("p.csv", "PROMPT , Group\nHe,a\n", "found PROMPT, Group .*'PROMPT' is not 'prompt'; 'Group' is not 'group'"),
        ("p.csv", "prompt\nHe\n", "no column group; found prompt"),
        ("p.csv", "prompt;group\nHe;a\nHe;she;a\n", "line 3: 3 fields, the header has 2; .*semicolons"),
        ("p.csv", "x," * 200_000 + "y\nHe,a\n", "no column prompt and group; found x, .* and 199989 more"),
        ("p.tsv", 'prompt\tgroup\n"He\ta\n' + "x" * 200_000, "malformed CSV: unexpected end of data"),
        ("p.jsonl", '{"prompt": "He", "group": "a"}\n{"prompt":\n', "line 2: malformed JSON"),
        ("p.jsonl", "[" * 100_000, "line 1: malformed JSON"),
        ("p.jsonl", '{"prompt": "He", "group": "a"}\n["x"]\n', "line 2: expected an object .* got list"),
        ("p.jsonl", '{"prompt": "He"}\n', "line 1: no column group; found prompt"),
        ("p.jsonl", '{"\\ud800": "He"}\n', r"line 1: no column prompt and group; found \\ud800"),
        ("p.jsonl", '{"prompt": 3, "group": "a"}\n', "line 1: prompt must be a text with words, got 3"),
        ("p.jsonl", '{"prompt": "\\ud800", "group": "a"}\n', "no valid Unicode"),
        ("p.jsonl", '{"prompt": "He", "group": "\\ud800"}\n', "no valid Unicode"),
        ("p.jsonl", '{"prompt": "He", "group": "a", "template": "\\ud800"}\n', "no valid Unicode"),
        ("p.jsonl", '{"prompt": "He", "group": null}\n', "line 1: group must be a text with words, got null"),
        ("p.jsonl", '{"prompt": "He", "group": true}\n', "group must be a text with words, got true"),
        ("p.jsonl", '{"prompt": "He", "group": 1.5}\n', r"group must be a text with words, got 1\.5"),
        ("p.jsonl", '{"prompt": "He", "group": NaN}\n', "group must be a text with words, got nan"),
        ("p.jsonl", '{"prompt": "He", "group": {"a": 1}}\n', "group must be a text with words, got object"),
        ("p.jsonl", '{"prompt": "He", "group": "a", "group": "b"}\n', "line 1: column group occurs twice"),
        ("p.jsonl", '{"prompt": "He", "group": "a", "template": null}\n', "template must be a text with words"),
        ("p.jsonl", '[{"prompt": "He", "group": "a"}]', "expected an object .* got list"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_its_line(tmp_path, name, content, message):
    with pytest.raises(DataError, match=message):
        read_prompts(write(tmp_path / name, content), min_group=1)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="cannot read"):
        read_prompts(tmp_path / "none.csv")
    with pytest.raises(DataError, match="cannot read"):
        read_prompts(tmp_path / "no\0ne.csv")
