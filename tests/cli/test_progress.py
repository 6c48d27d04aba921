"""Progress: a bar on a terminal, occasional plain lines elsewhere, nothing when quiet."""

from __future__ import annotations

import io
import sys

import pytest
from rich.console import Console

from fairmend.cli import progress
from fairmend.cli.console import PlainConsole
from fairmend.cli.progress import Steps
from fairmend.cli.tables import plain_table
from fairmend.escaping import visible


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is set."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def steps(terminal=False, quiet=False):
    written = io.StringIO()
    return Steps(Console(file=written, force_terminal=terminal, width=120), quiet), written


def test_a_step_of_less_than_two_seconds_says_nothing(clock):
    shown, written = steps()
    shown.start(1000, "annealing")
    clock[0] += 1.9
    shown.update(900, 1000, 470.0, 0.2)
    shown.close()
    assert written.getvalue() == ""


def test_a_longer_one_says_every_ten_seconds_how_far_it_is_and_how_long_it_will_take(clock):
    shown, written = steps()
    shown.start(100_000, "annealing")
    for _ in range(230):
        clock[0] += 0.1
        shown.update(5_000, 100_000, 1_234.0, 95.0, "EOD 0.1")
    lines = written.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[0] == "annealing: 5,000 of 100,000, 1,234 a second, 1 min 35 s left, EOD 0.1"


def test_quiet_is_silent_on_a_terminal_too(clock):
    for terminal in (False, True):
        shown, written = steps(terminal, quiet=True)
        shown.start(10, "annealing")
        clock[0] += 30
        shown.update(5, 10, 1.0, 5.0)
        shown.close()
        assert written.getvalue() == ""


def test_a_terminal_gets_a_bar_with_the_time_left():
    shown, written = steps(terminal=True)
    shown.start(10, "annealing")
    shown.update(5, 10, 2.0, 3.0)
    shown.close()
    text = written.getvalue()
    assert "annealing" in text
    assert "50%" in text
    assert "3 s left" in text


def test_a_download_and_a_training_say_how_long_they_will_take(clock):
    shown, written = steps()
    shown.download(0, 28_000_000)
    clock[0] += 4
    shown.download(7_000_000, 28_000_000)
    shown.download(28_000_000, 28_000_000)
    shown.training(1, 40, 0.5)
    clock[0] += 3
    shown.training(11, 40, 0.612)
    lines = written.getvalue().splitlines()
    assert lines[0] == "downloading: 7 of 28, 12 s left"
    assert lines[1].startswith("training the preset's own network: 11 of 40,")
    assert lines[1].endswith("left, validation figure 0.612")


def test_a_download_of_unknown_size_has_no_end_in_sight(clock):
    shown, written = steps()
    shown.download(0, None)
    clock[0] += 3
    shown.download(5_000_000, None)
    assert written.getvalue() == "downloading: 5\n"


NAMES = ["a[/x]", "[oops]", "python:key:score", "\x1b[31mred\u202e", "[bold]b[/bold]"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("terminal", [False, True])
def test_names_in_titles_and_notes_are_shown_as_they_are(clock, terminal, name):
    shown, written = steps(terminal)
    shown.start(10, f"reading {name}")
    clock[0] += 5
    shown.update(5, 10, note=f"at {name}")
    shown.close()
    assert f"reading {visible(name)}" in written.getvalue()
    assert f"at {visible(name)}" in written.getvalue()
    assert "\x1b[31mred" not in written.getvalue()


def test_texts_cells_and_titles_on_a_console_are_shown_as_they_are(monkeypatch):
    monkeypatch.setattr("sys.stdout", io.StringIO())
    console = PlainConsole(width=100)
    for name in NAMES:
        table = plain_table(f"title {name}", f"head {name}")
        table.add_row(f"cell {name}\nnext")
        console.print(f"text {name}\n", table)
        for place in ("text", "title", "head", "cell"):
            assert f"{place} {visible(name)}" in sys.stdout.getvalue()
        assert f"cell {visible(name)}\\nnext" in sys.stdout.getvalue()
    assert "\x1b" not in sys.stdout.getvalue()
