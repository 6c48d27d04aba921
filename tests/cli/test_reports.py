"""`report.html` in every folder that a command writes, and `fairmend report`: real runs, in a real browser."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest

from fairmend.report import plots

from ..conftest import Look
from ..report.test_page import HOSTILE, sheets
from .conftest import OWN, REPAIR, Run, arguments, small_table
from .test_folders import FRONT, STUDY

LABEL, GROUP = HOSTILE["formula"], HOSTILE["html"].replace("<h1>", "</td>")
WOMEN, MEN = HOSTILE["script"] + HOSTILE["direction"], HOSTILE["long"]


def test_a_repair_of_people_with_hostile_names(run: Run, desk: Path, look: Look) -> None:
    table = small_table().rename(columns={"sex": GROUP, "hired": LABEL, "score": HOSTILE["template"]})
    table[GROUP] = table[GROUP].map({"F": WOMEN, "M": MEN})
    table.to_csv("people.csv", index=False)
    out = Path("<img src=x onerror=alert(1)> [a](javascript:alert(2)) \u202e")
    options = REPAIR | {"--label": LABEL, "--sensitive": GROUP, "--out": out}

    made = run("tabular", "repair", *arguments(options), "--quiet")

    assert made.code == 0, made.err
    assert "report.html" in made.out
    file = out / "report.html"
    assert file.stat().st_size < 2_000_000
    sight = look(file, width=360)
    assert sight.page.evaluate("document.documentElement.scrollWidth") == 360
    assert sight.breaches() == []
    assert sight.page.title() == "people - fairmend"
    html = file.read_text()
    assert MEN in html
    assert "\u202e" not in html
    cells = [cell for sheet in sheets(html) for row in sheet for cell in row]
    assert any("owned" in cell for cell in cells)
    assert [cell for cell in cells if cell[:1] in tuple("=@\t\r")] == []
    assert sight.deeds == []


def test_a_repair_of_a_language_model_with_hostile_prompts_and_a_front(run: Run, office: Path, look: Look) -> None:
    with Path("people.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("prompt", "group"))
        for row in range(40):
            rng = np.random.default_rng(row)
            words = " ".join(f"w{number}" for number in rng.integers(3, 64, 4))
            writer.writerow((f"{words} {HOSTILE['html']}", HOSTILE["script"] if row % 2 else HOSTILE["markdown"]))

    made = run("lm", "repair", "model", *arguments(FRONT))

    assert made.code == 0, made.err
    sight = look(Path("out/report.html"))
    page = sight.page
    assert page.locator(".panel:visible").count() == 0
    spot = page.locator("svg a").last
    spot.focus()
    page.keyboard.press("Enter")
    command = page.locator(".panel:visible pre").inner_text()
    assert command.startswith("fairmend lm pick out --point ")
    picked = run(*command.split()[1:], "--quiet")
    assert picked.code == 0, picked.err
    assert "Examples before and after" in page.inner_text("nav")
    assert sight.breaches() == []
    point = look(Path(command.split()[-1], "report.html"), scheme="dark", width=360)
    assert point.page.evaluate("document.documentElement.scrollWidth") == 360
    assert point.breaches() == []
    assert sight.deeds + point.deeds == []


def test_a_study_shows_its_tables_and_its_picture(run: Run, desk: Path, look: Look) -> None:
    command = ["tabular", "compare", *arguments(STUDY), "--seeds", "2", "--search", "annealing,random"]
    assert run(*command).code == 0
    sight = look(Path("out/report.html"), width=360)
    assert sight.page.locator(".stored img").evaluate("image => image.naturalWidth") > 300
    assert sight.page.locator("tbody th", has_text="annealing").count()
    assert sight.page.evaluate("document.documentElement.scrollWidth") == 360
    assert sight.breaches() == []
    assert sight.deeds == []


def test_an_audit_with_out_is_saved_shown_and_reported(run: Run, desk: Path, look: Look) -> None:
    audit = ["tabular", "audit", *arguments(OWN), "--draws", "200", "--quiet", "--out", "audited"]
    made = run(*audit)
    assert made.code == 0, made.err
    assert sorted(path.name for path in Path("audited").iterdir()) == ["audit.json", "report.html"]
    assert made.out.startswith(run("show", "audited").out.rstrip())
    again = run(*audit)
    assert again.code == 2
    assert "is not empty" in again.message
    sight = look(Path("audited/report.html"))
    assert "Groups on the test split" in sight.page.inner_text("nav")
    assert sight.breaches() == []
    assert sight.deeds == []


def test_an_audit_of_a_language_model_is_saved_shown_and_reported(run: Run, office: Path) -> None:
    measure = {name: value for name, value in FRONT.items() if name not in ("--alpha", "--loss-scores", "--front")}
    measure = {name: value for name, value in measure.items() if name != "--max-perplexity"} | {"--out": "audited"}
    made = run("lm", "audit", "model", *arguments(measure))
    assert made.code == 0, made.err
    assert made.out.startswith(run("show", "audited").out.rstrip())
    assert run("show", "audited", "--json").document["schema"] == "fairmend language audit"
    assert "Audit of a language model" in Path("audited/report.html").read_text()


def test_reports_of_several_folders_go_into_one_file(run: Run, desk: Path) -> None:
    assert run("tabular", "repair", *arguments(REPAIR), "--quiet").code == 0
    first = Path("out/report.html").read_bytes()
    assert run("report", "out").code == 0
    assert Path("out/report.html").read_bytes() == first
    assert run("report", "out", "out", "--out", "both.html", "--json").document["folders"] == ["out", "out"]
    assert "2 results side by side" in Path("both.html").read_text()
    refused = run("report", "out", "--out", "both.html")
    assert (refused.code, "--force" in refused.message) == (2, True)
    assert run("report", "out", "--out", "both.html", "--force").code == 0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["nothing"], "holds no result to report"),
        (["."], "holds no result to report"),
        ([".", "nothing"], "give --out FILE.html"),
        ([".", "--out", "report.pdf"], "must end in .html"),
    ],
)
def test_what_cannot_be_reported_is_refused(run: Run, desk: Path, given: list[str], said: str) -> None:
    before = sorted(os.listdir())
    outcome = run("report", *given)
    assert outcome.code == 2
    assert said in outcome.message
    assert sorted(os.listdir()) == before


def test_a_result_survives_a_report_that_cannot_be_drawn(run: Run, desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*given: object) -> None:
        raise ValueError("no ink")

    monkeypatch.setattr(plots, "_whisker", broken)
    made = run("tabular", "repair", *arguments(REPAIR))
    assert made.code == 0
    assert "report.html is not written (no ink)" in made.message
    assert Path("out/result.json").is_file()
