"""What can be wrong with a file: bytes that were changed, cut, doubled or never belonged there."""

from __future__ import annotations

import json
import math
import os
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

_EXAMPLES = os.environ.get("FUZZ_EXAMPLES")

fuzzed = settings(
    max_examples=int(_EXAMPLES or 40),
    derandomize=_EXAMPLES is None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)
"""A look at each reader, the same in every test run; FUZZ_EXAMPLES=4000 goes on for minutes and elsewhere each time."""

_WORDS = st.sampled_from(
    [
        "",
        "../up",
        "/dev/zero",
        "nan",
        "1e400",
        "\x00",
        "\x1b[2J",
        "\u202e",
        "²",
        "9" * 5000,
        "python:os:abort",
        "é",
        "\ud800",
    ]
)
_NUMBERS = st.sampled_from([0, -1, 1, 2**31, 2**62, 2**64, -(2**63), 0.5, 1e308, math.nan, math.inf])
_LEAVES = st.one_of(st.none(), st.booleans(), _NUMBERS, _WORDS)
VALUES = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_WORDS, inner, max_size=3)),
    max_leaves=6,
)
_PIECES = st.one_of(
    st.binary(max_size=12),
    st.sampled_from(
        [b"\xff" * 8, b"\x00" * 8, b"../../", b"[" * 100_000, b'{"a":' * 2_000, b"\n", b'"', b",,,,", b"\xef\xbb\xbf"]
    ),
)


@st.composite
def damaged(draw: st.DrawFn, original: bytes) -> bytes:
    """A file with a few places changed, cut out, doubled or filled in; now and then bytes that were never one."""
    if draw(st.integers(0, 19)) == 0:
        return draw(st.binary(max_size=200))
    content = bytearray(original)
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.sampled_from([0, 1, 4, 64, len(content)])))
        kind = draw(st.sampled_from(["replace", "cut", "double", "flip"]))
        if kind == "replace":
            content[start:end] = draw(_PIECES)
        elif kind == "cut":
            del content[start:end]
        elif kind == "double":
            content[start:start] = content[start:end]
        elif start < len(content):
            content[start] ^= 1 << draw(st.integers(0, 7))
    return bytes(content)


@st.composite
def restated(draw: st.DrawFn, document: Any) -> Any:
    """A JSON document with one value, at any depth, replaced, left out or given another name."""
    if not isinstance(document, dict | list) or not document or draw(st.integers(0, 9)) == 0:
        return draw(VALUES)
    keys = list(document) if isinstance(document, dict) else list(range(len(document)))
    key = draw(st.sampled_from(keys))
    changed = dict(document) if isinstance(document, dict) else list(document)
    if draw(st.integers(0, 5)):
        changed[key] = draw(restated(document[key]))
    else:
        value = changed.pop(key)
        if isinstance(changed, dict) and draw(st.booleans()):
            changed[draw(_WORDS)] = value
    return changed


def json_text(document: Any) -> bytes:
    """The document as Python writes it, NaN and lone surrogates included."""
    return json.dumps(document).encode()
