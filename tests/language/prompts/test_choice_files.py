"""A user's own choices, read from a file."""

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairmend.errors import DataError
from fairmend.language.prompts.choice_files import read_choices, read_knowledge

HEAD = "context,a,b,group\n"
ROWS = (
    "The nurse said that,he,she,f\nThe baker ate and,he,she,f\nThe smith ran and,he,she,m\nThe cook ate and,he,she,m\n"
)


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_csv_file_is_read_with_its_pairs_weights_and_columns(tmp_path):
    content = (
        "context,a,b,group,pair,weight,template,note\n"
        "The nurse said that,he | him,she | her,f,p,2,t1,x\n"
        "The smith said that,he | him,she | her,m,p,.5,t1,\n"
        "The nurse sang while,he,she,f,,1,t2,y\n"
        "The smith sang while,he,she,m,,1,t2,z\n"
    )
    choices = read_choices(write(tmp_path / "own.csv", content), licence="MIT")
    assert choices.a == ((" he", " him"), (" he", " him"), (" he",), (" he",))
    assert choices.b[0] == (" she", " her")
    assert choices.weights.tolist() == [2, 0.5, 1, 1]
    assert choices.pairs.tolist() == [0, 0, 1, 2]
    assert choices.columns == {"template": ("t1", "t1", "t2", "t2")}
    assert (choices.axis, choices.source, choices.licence, choices.compared) == ("own", "own.csv", "MIT", "groups")


def test_json_lines_hold_lists_and_a_text_is_always_one_alternative(tmp_path):
    rows = [
        {"context": "It is", "a": ["good", " fine"], "b": "bad | worse", "group": k % 2, "pair": k} for k in range(4)
    ]
    choices = read_choices(write(tmp_path / "own.jsonl", "\n".join(map(json.dumps, rows))))
    assert choices.a[0] == (" good", " fine")
    assert choices.b[0] == (" bad | worse",)
    assert choices.counts == {"0": 2, "1": 2}


@pytest.mark.parametrize(
    ("context", "text", "expected"),
    [
        ("She said", "yes", ("She said", " yes")),
        ("She said", " yes ", ("She said", " yes")),
        ("She said ", "yes", ("She said", " yes")),
        ("She said ", " yes", ("She said", " yes")),
        ("She said\n", "yes", ("She said", "\nyes")),
        ("She said", ", no", ("She said", ", no")),
        ("She said", "7 times", ("She said", " 7 times")),
        ("彼は", "医者", ("彼は", "医者")),
        ("", " Whole sentence. ", ("", "Whole sentence.")),
        ("  ", "Whole sentence.", ("", "Whole sentence.")),
    ],
)
def test_a_continuation_begins_with_its_own_space(tmp_path, context, text, expected):
    rows = [{"context": context, "a": text, "b": "other", "group": "g"}] * 2
    choices = read_choices(write(tmp_path / "own.jsonl", "\n".join(map(json.dumps, rows))), compared="zero")
    assert (choices.texts[0], choices.a[0][0]) == expected


def test_both_forms_say_the_same(tmp_path):
    rows = [dict(zip(HEAD.strip().split(","), line.split(","), strict=True)) for line in ROWS.splitlines()]
    one = read_choices(write(tmp_path / "own.csv", HEAD + ROWS)).fingerprint()
    other = read_choices(write(tmp_path / "own.jsonl", "\n".join(map(json.dumps, rows)))).fingerprint()
    assert one["sha256"] == other["sha256"]


def test_knowledge_may_be_about_one_group_and_is_compared_with_zero(tmp_path):
    knowledge = read_knowledge(
        write(tmp_path / "k.csv", HEAD + "My aunt said that,she,he,f\nMy niece knew that,she,he,f\n")
    )
    assert (knowledge.compared, knowledge.counts) == ("zero", {"f": 2})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.txt", HEAD, r"must end in \.csv, .*how items are read"),
        ("c.csv", HEAD, "has no items: give it rows of context, a, b, group"),
        ("c.csv", "context,A,b,grp\nx,y,z,g\n", "no column a and group; found context, A, b, grp .*'A' is not 'a'"),
        ("c.csv", "context,a,b,group,note,note\nx,y,z,g,1,2\n", "column note occurs twice"),
        ("c.csv", HEAD + "x,y,z,g\nx, ,z,g\n", "line 3: a must be a text with words, got ' '"),
        ("c.csv", HEAD + "x,y,z |  | w,g\n", "line 2: b must be a text with words"),
        ("c.csv", HEAD + "x,y,z,g\nx,y,w | y,g\n", r"c\.csv, line 3: ' y' stands on both sides: a and b must differ"),
        ("c.csv", HEAD + "x,y,z,g\nx, y,y,g\n", "line 3: ' y' stands on both sides"),
        ("c.csv", HEAD + "x,y,z,\n", "line 2: group must be a text with words"),
        ("c.csv", HEAD + "x,y\n", "line 2: 2 fields, the header has 4; put items with"),
        ("c.csv", HEAD + ROWS + "x,y,z,lone\n", r"fewer than 2 items: lone \(1\)"),
        ("c.csv", HEAD + "x,y,z,g\nw,y,z,g\n", "compares groups, but c has 1 with at least 2 items"),
        (
            "c.csv",
            "context,a,b,group,weight\nx,y,z,g,1\nx,y,z,h,two\n",
            "line 3: weight must be a positive number .*'two'",
        ),
        ("c.csv", "context,a,b,group,weight\nx,y,z,g,1\nx,y,z,h,0\n", "line 3: weight 0.0 must be a positive number"),
        ("c.csv", "context,a,b,group,weight\nx,y,z,g,nan\n", "line 2: weight nan must be a positive number"),
        ("c.csv", "context,a,b,group,weight\nx,y,z,g,\n", "line 2: weight must be a text with words"),
        ("c.jsonl", '{"context": "x", "a": [], "b": "z", "group": "g"}\n', "line 1: a must be a text with words"),
        (
            "c.jsonl",
            '{"context": "x", "a": [1], "b": "z", "group": "g"}\n',
            "line 1: a must be a text with words, got 1",
        ),
        ("c.jsonl", '{"context": null, "a": "y", "b": "z", "group": "g"}\n', "context must be a text, got null"),
        ("c.jsonl", '{"context": "x", "a": "\\ud800", "b": "z", "group": "g"}\n', "line 1: .* no valid Unicode"),
        ("c.jsonl", '{"context": "x", "a": "y", "b": "z", "group": "g", "weight": 0.5}\n', "weight must be a text"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_its_line(tmp_path, name, content, message):
    with pytest.raises(DataError, match=message):
        read_choices(write(tmp_path / name, content))


WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"], exclude_characters="|"), min_size=1, max_size=6)
SIDES = st.lists(WORDS, min_size=2, max_size=5, unique=True)


@given(rows=st.lists(st.tuples(st.sampled_from(["", "Well", "She said, "]), SIDES), min_size=2, max_size=6))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_what_is_written_as_csv_or_as_json_is_read_alike(tmp_path_factory, rows):
    folder = tmp_path_factory.getbasetemp()
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow(["context", "a", "b", "group"])
    lines = []
    for context, sides in rows:
        a, b = sides[:1], sides[1:]
        writer.writerow([context, " | ".join(a), " | ".join(b), "g"])
        lines.append(json.dumps({"context": context, "a": a, "b": b, "group": "g"}))
    one = read_choices(write(folder / "both.csv", table.getvalue()), compared="zero")
    other = read_choices(write(folder / "both.jsonl", "\n".join(lines)), compared="zero")
    assert (one.texts, one.a, one.b) == (other.texts, other.a, other.b)
    for (context, sides), a, b in zip(rows, one.a, one.b, strict=True):
        assert [text.strip() for text in (*a, *b)] == sides
        assert all(not text[0].isspace() for text in (*a, *b)) or context


PIECES = [
    *(b"context", b"a", b"b", b"group", b"weight", b"pair", b" | ", b'"', b",", b";", b"\t", b"\n", b"\r", b"\0", b" "),
    *(b"{", b"}", b"[", b"]", b":", b"\\", b"\\ud800", b"1", b"1e999", b"null", b"NaN", b"\xff\xfe", b"\xff"),
    *(b'{"context": "He", "a": ["x", "y"], "b": "z", "group": 1}\n', b"context,a,b,group\n", b"x,y,z | w,g\n"),
]


@given(pieces=st.lists(st.sampled_from(PIECES), max_size=30), suffix=st.sampled_from([".csv", ".tsv", ".jsonl"]))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_whatever_a_file_holds_only_errors_of_ours_come_out(tmp_path_factory, pieces, suffix):
    file = write(tmp_path_factory.getbasetemp() / f"anychoices{suffix}", b"".join(pieces))
    try:
        choices = read_choices(file, compared="zero")
    except DataError as error:
        str(error).encode()
    else:
        "".join([*choices.keys, *choices.group_names, *choices.columns]).encode()
        assert min(choices.counts.values()) >= 2
