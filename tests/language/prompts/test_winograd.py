"""WinoBias and Winogender: sentences that differ in their pronouns, and who is meant."""

import csv
import io
import re
from collections import Counter

from fairmend.language.prompts.winograd import winobias, winogender


def test_winobias_sentences_are_the_published_ones_without_their_marks(published):
    # Without spaces, which stand before apostrophes there.
    lines = {
        side: {
            "".join(re.sub(r"^\d+ |[][]", "", line).split())
            for kind in (1, 2)
            for part in ("dev", "test")
            for line in published(f"WinoBias/data/{side}_stereotyped_type{kind}.txt.{part}").splitlines()
        }
        for side in ("pro", "anti")
    }
    items = winobias()
    for context, (a,), (b,) in zip(items.texts, items.a, items.b, strict=True):
        assert "".join((context + a).split()) in lines["pro"]
        assert "".join((context + b).split()) in lines["anti"]
    assert items.notes[-1] == "left out, because more than pronouns differs in their pair: 38 of 1,584 items"
    assert items.counts == {"type1": 778, "type2": 768}


def test_a_pair_of_winobias_has_one_item_of_either_sex_and_is_never_divided(published):
    items = winobias()
    of_pair: dict[int, list[str]] = {}
    for pair, sex in zip(items.pairs.tolist(), items.columns["stereotype"], strict=True):
        of_pair.setdefault(pair, []).append(sex)
    assert {tuple(sorted(sexes)) for sexes in of_pair.values()} == {("female", "male")}
    for part in items.split(seed=0):
        assert set(Counter(part.pairs.tolist()).values()) == {2}


def test_the_stereotyped_pronoun_of_winobias_comes_first(published):
    items = winobias()
    for (a,), (b,), sex in zip(items.a, items.b, items.columns["stereotype"], strict=True):
        first, other = (set(re.findall(r"[a-z]+", text.lower())) for text in (a, b))
        male, female = {"he", "him", "his", "himself"}, {"she", "her", "herself"}
        assert first & (male if sex == "male" else female)
        assert other & (female if sex == "male" else male)


def test_winogender_fills_the_published_templates_with_either_pronoun(published):
    templates = csv.DictReader(io.StringIO(published("Winogender/data/templates.tsv")), delimiter="\t")
    by_key = {(row["occupation(0)"], row["other-participant(1)"]): row for row in templates if row["answer"] == "0"}
    items = winogender()
    pronouns = {"$NOM_PRONOUN": ("he", "she"), "$POSS_PRONOUN": ("his", "her"), "$ACC_PRONOUN": ("him", "her")}
    named = 0
    for number, (context, (a,), (b,)) in enumerate(zip(items.texts, items.a, items.b, strict=True)):
        key = items.columns["occupation"][number], items.columns["participant"][number]
        if key in by_key:
            named += 1
            text = by_key[key]["sentence"].replace("$OCCUPATION", key[0]).replace("$PARTICIPANT", key[1])
            filled = [text, text]
            for slot, pair in pronouns.items():
                filled = [one.replace(slot, word) for one, word in zip(filled, pair, strict=True)]
            assert [context + a, context + b] == filled
    assert (named, len(items)) == (47, 94)
    assert items.counts == {"female": 46, "male": 48}
