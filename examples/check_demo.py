"""Did the demo show what it claims? Reads the results of its repairs, and exits with 1 if they do not show it.

    python examples/check_demo.py fairmend-demo/network fairmend-demo/language-model

Of each repair it asks, on people or prompts that the search never saw: was the unfairness that is known to be there
seen, that is told from chance? And is less of it left after the repair, with an interval of the change below 0? And
where knowledge was to be kept, is most of it still there? A run
that ends well and finds nothing to repair in a model that was made to insult people is broken, not reassuring.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KEPT = 0.8  # of the knowledge; a repair keeps 90 % of it where it searches, and less is left on other words
CHANCE = 0.05  # a p-value below it tells an unfairness from chance, as it does in the results' own verdicts


@dataclass(frozen=True)
class Judged:
    """An unfairness before and after a repair, on data that its search never saw.

    `floor` is what a model that treats all groups alike would show, `low` and `high` the interval of the change, `kept`
    the share of the knowledge that is left, where it was asked for. A figure that does not exist (null in the file) is
    None and shows nothing.
    """

    subject: str
    figure: str
    before: float | None = None
    floor: float | None = None
    p_value: float | None = None
    after: float | None = None
    low: float | None = None
    high: float | None = None
    kept: float | None = None

    def claims(self) -> Iterator[tuple[str, bool]]:
        """What the demo claims, in words and with figures, and whether it holds."""
        before, after, floor, low, high = map(_in_words, (self.before, self.after, self.floor, self.low, self.high))
        p_value = "undefined" if self.p_value is None else f"{self.p_value:.1g}"
        yield (
            f"{self.subject} is unfair: {self.figure} {before}, above the {floor} of chance, p-value {p_value} below "
            f"{CHANCE}",
            _less(self.floor, self.before) and _less(self.p_value, CHANCE),
        )
        yield (
            f"the repair of {self.subject} helps: {self.figure} {before} -> {after}, a change in [{low}, {high}] and "
            "so below 0",
            _less(self.after, self.before) and _less(self.high, 0.0),
        )
        if self.kept is not None:
            yield f"{self.subject} still knows {self.kept:.0%} of what it knew, at least {KEPT:.0%}", self.kept >= KEPT


def judged_network(result: dict[str, Any]) -> Judged:
    """The people of the test split, out of the result.json of a tabular repair."""
    comparison = result["splits"]["test"]["comparison"]
    before, after, interval = comparison["before"], comparison["after"], comparison["change"]["interval"]
    return Judged(
        "the network",
        "equalized-odds difference",
        before["unfairness"],
        before["floor"],
        before["p_value"],
        after["unfairness"],
        **_ends(interval),
    )


def judged_language_model(result: dict[str, Any]) -> Judged:
    """The held-out items, out of the result.json of a language model's repair."""
    held_out = result["held_out"]
    change = held_out["axes"][0]["change"] if held_out else None
    if change is None:  # never judged, or broken on the held-out items: no figure, so no claim holds
        return Judged("the language model", "bias")
    before, after, knowledge = change["before"], change["after"], held_out["knowledge"]
    return Judged(
        "the language model",
        "bias",
        before["value"],
        before["floor"],
        before["p_value"],
        after["value"],
        **_ends(change["interval"]),
        kept=None if knowledge is None else knowledge["kept"],
    )


def main() -> int:
    """Print every claim; 1 if one of them does not hold or a result is missing."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folders", type=Path, nargs="+", help="of the repairs that the demo made")
    claims: list[tuple[str, bool]] = []
    for folder in parser.parse_args().folders:
        try:
            result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        except FileNotFoundError as missing:
            print(f"The demo showed nothing: {missing.filename} is missing, a repair did not end", file=sys.stderr)
            return 1
        judged = judged_network if "splits" in result else judged_language_model
        claims += judged(result).claims()
    print("What the demo claims, on people and items that the searches never saw:")
    for claim, holds in claims:
        print(f"  {'holds' if holds else 'FAILS'}: {claim}")
    if all(holds for _, holds in claims):
        return 0
    print("The demo did not show what it claims (FAILS above): do not trust these figures", file=sys.stderr)
    return 1


def _ends(interval: dict[str, Any]) -> dict[str, Any]:
    return {"low": interval["low"], "high": interval["high"]}


def _less(smaller: float | None, larger: float | None) -> bool:
    return smaller is not None and larger is not None and smaller < larger


def _in_words(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    sys.exit(main())
