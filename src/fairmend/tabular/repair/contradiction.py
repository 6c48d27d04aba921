"""Does a network do worse than saying the opposite, so that its classes are likely mixed up?"""

from __future__ import annotations

import math

from fairmend.tabular.data.datasets import Dataset
from fairmend.tabular.networks.networks import Network, decide

_ROWS_LOOKED_AT = 20_000
_CLEARLY = 3.0  # standard errors


def contradiction(network: Network, dataset: Dataset) -> str | None:
    """Say that a network of two classes does worse than saying the opposite, where it clearly does; else None.

    Clearly: it is right on less than half of the rows, and its true positive rate lies below its false positive rate by
    more than three standard errors. Looked at are at most 20,000 rows, evenly spaced.
    """
    if dataset.positive is None:
        return None
    rows = slice(None, None, max(1, len(dataset.X) // _ROWS_LOOKED_AT))
    y, predicted = dataset.y[rows], decide(network.logits(dataset.X[rows]))
    right = float((y == predicted).mean())
    rates = [(float(predicted[y == code].mean()), int((y == code).sum())) for code in (0, 1) if (y == code).any()]
    if right >= 0.5 or len(rates) < 2:
        return None
    (alarms, _), (hits, _) = rates
    error = math.sqrt(sum(rate * (1 - rate) / n for rate, n in rates))
    if alarms - hits <= _CLEARLY * error:
        return None
    negative, positive = dataset.classes
    return (
        f"the network does worse than saying the opposite: it is right on {right:.1%} of the rows, the opposite would "
        f"be on {1 - right:.1%}. {positive!r} was taken as the positive class, the one that the network's class 1 "
        f"means: if that is {negative!r}, say so (positive=...)"
    )
