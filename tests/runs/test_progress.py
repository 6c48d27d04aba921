"""What is said about long work: stages one after the other, each from when the one before it ended."""

from fairmend.runs import progress
from fairmend.runs.progress import Stages


class Listener:
    def __init__(self):
        self.heard = []

    def start(self, total, title):
        self.heard.append((title, total))

    def update(self, done, total, rate, eta_seconds, note):
        self.heard.append((done, total, rate, eta_seconds))

    def close(self):
        self.heard.append("closed")


def test_stages_are_shown_one_after_the_other_with_the_time_left(monkeypatch):
    clock = iter([0.0, 0.0, 1.0, 2.0, 3.0, 10.0, 11.0])
    monkeypatch.setattr(progress, "perf_counter", lambda: next(clock))
    listener = Listener()
    with Stages(listener, "heads: ") as stages:
        drawn = stages.of("continuations")  # begins at 1
        drawn(1, 4)  # at 2
        drawn(4, 4)  # at 3
        stages("bias", 7, 14)  # at 10; nothing was heard since 3
    assert listener.heard == [
        ("heads: continuations", 4),
        (1, 4, 1.0, 3.0),
        (4, 4, 2.0, 0.0),
        "closed",
        ("heads: bias", 14),
        (7, 14, 1.0, 7.0),
        "closed",
    ]


def test_without_anybody_to_show_it_to_nothing_happens():
    with Stages(None) as stages:
        stages.of("continuations")(1, 2)
