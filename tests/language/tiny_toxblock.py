"""A stand-in for the wheel of tox-block: the same layers, four units wide, and a vocabulary of a few words."""

import collections
import hashlib
import io
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fairmend.language.toxicity import toxblock

VOCABULARY = ["you", "the", "dog", "is", "awful", "stupid", "kind", "people", "are", "a", "and"]
_WIDTH = 4


def pickled(words: list[str] = VOCABULARY) -> bytes:
    """The attributes of a tokenizer, with an object before the dictionary, as there is one in the package's."""
    numbers = {word: number for number, word in enumerate(words, start=1)}
    counts = collections.OrderedDict((word, 1000 - number) for word, number in reversed(numbers.items()))
    index = {number: word for word, number in numbers.items()}
    return pickle.dumps({"word_counts": counts, "lower": True, "word_index": numbers, "index_word": index}, protocol=3)


def weights(seed: int = 0) -> dict[str, np.ndarray]:
    rng, lstm = np.random.default_rng(seed), "bidirectional/bidirectional/{}_lstm/{}:0"
    shapes = {"embedding/embedding/embeddings:0": (len(VOCABULARY) + 1, _WIDTH)}
    for direction in ("forward", "backward"):
        shapes |= {lstm.format(direction, part): (_WIDTH, 4 * _WIDTH) for part in ("kernel", "recurrent_kernel")}
        shapes[lstm.format(direction, "bias")] = (4 * _WIDTH,)
    shapes |= {"dense/dense/kernel:0": (2 * _WIDTH, _WIDTH), "dense/dense/bias:0": (_WIDTH,)}
    shapes |= {"dense_1/dense_1/kernel:0": (_WIDTH, 6), "dense_1/dense_1/bias:0": (6,)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def cache_wheel(cache: Path, monkeypatch: pytest.MonkeyPatch, vocabulary: bytes | None = None) -> Path:
    """Put the wheel into a cache of its own, and have its digests expected."""
    h5py = pytest.importorskip("h5py")
    stored = io.BytesIO()
    with h5py.File(stored, "w") as file:
        for name, values in weights().items():
            file[f"model_weights/{name}"] = values
    of_pickle = pickled() if vocabulary is None else vocabulary
    members = {"weights.h5": stored.getvalue(), "LICENSE": b"MIT"}
    wheel = io.BytesIO()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(toxblock._PICKLE, of_pickle)
        archive.writestr("tox_block/prediction.py", "raise SystemExit")
        for name, content in members.items():
            archive.writestr(toxblock._MEMBERS[name], content)
    kept = {**members, "vocabulary.txt": "\n".join(VOCABULARY).encode()}
    monkeypatch.setenv("FAIRMEND_CACHE", str(cache))
    monkeypatch.setattr(toxblock, "WHEEL", replace(toxblock.WHEEL, sha256=_digest(wheel.getvalue())))
    monkeypatch.setattr(toxblock, "_PICKLE_SHA256", _digest(of_pickle))
    monkeypatch.setattr(toxblock, "_KEPT", {name: _digest(content) for name, content in kept.items()})
    path = cache / "tox-block-0.1.2" / toxblock.WHEEL.filename
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(wheel.getvalue())
    return path


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
