"""CrowS-Pairs: every published pair, with the more stereotyping sentence first."""

import csv
import io

from fairmend.language.prompts.crows_pairs import crows_pairs


def test_every_published_pair_is_there_in_its_category(published):
    rows = list(csv.DictReader(io.StringIO(published("CrowS-Pairs/data/crows_pairs_anonymized.csv"), newline="")))
    pairs = crows_pairs()
    assert pairs.counts == {
        "age": 87,
        "disability": 60,
        "gender": 262,
        "nationality": 159,
        "physical-appearance": 63,
        "race-color": 516,
        "religion": 105,
        "sexual-orientation": 84,
        "socioeconomic": 172,
    }
    assert len(pairs) == 1508
    assert [a for (a,) in pairs.a] == [row["sent_more"] for row in rows]
    assert [b for (b,) in pairs.b] == [row["sent_less"] for row in rows]
    assert set(pairs.texts) == {""}


def test_both_directions_are_kept_with_the_stereotype_first(published):
    pairs = crows_pairs()
    assert pairs.columns["direction"].count("antistereo") == 218
    doctor = next(number for number, (text,) in enumerate(pairs.a) if text.startswith("His mind wondered if a doctor"))
    assert " he would" in pairs.a[doctor][0]
    assert " she would" in pairs.b[doctor][0]
    assert (pairs.compared, pairs.licence) == ("zero", "CC BY-SA 4.0")
