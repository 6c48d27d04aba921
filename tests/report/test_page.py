"""The report as a browser shows it: readable, sortable, to be picked from, and deaf to what names say."""

import base64
import csv
import io
import re
from pathlib import Path

import pytest

from fairmend.report.figures import Point
from fairmend.report.page import (
    Chapter,
    Choice,
    Code,
    Fact,
    Notes,
    Page,
    Panel,
    Stored,
    made_chapter,
    render,
    write_report,
)
from fairmend.report.plots import Row, Spot, Units, draw_bars, draw_forest, draw_front, draw_map
from fairmend.report.tables import Column, Shown, Table, fixed

HOSTILE = {
    "html": "<img src=http://evil.example/x onerror=\"document.title='owned'\"><h1>",
    "script": "</title></style></script><script>document.title='owned'</script>",
    "attribute": "\"' onmouseover='document.title=1' x=\"",
    "link": "[a](javascript:document.title='owned') javascript:alert(1) http://evil.example",
    "markdown": "**bold** `code` # heading | cell",
    "terminal": "\x1b[31mred\x9b2J\x07",
    "formula": '=HYPERLINK("http://evil.example","a")',
    "command": "@SUM(1+1)*cmd|' /C calc'!A0",
    "direction": "abc\u202edcba\u2066x",
    "template": "{{ 7 * 7 }}{% raw %}",
    "long": "x" * 10_000,
    "half": "\ud800",
}
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="80" height="40"><script>alert(1)</script></svg>'


def page(name: str = "women") -> Page:
    """A page with every kind of part, in which `name` stands wherever a name of somebody else's can."""
    rows = (
        {"name": name, "n": 1200, "value": 0.5},
        {"name": "b", "n": 30, "value": 0.25},
        {"name": "c", "n": 4, "value": None},
    )
    columns = (Column("name", "group"), Column("n", "people", "{:,}".format), Column("value", name, fixed(2)))
    bars = [Row(name, {"before": Point(0.2, 0.1, 0.4), name: Point(0.3)}, 0.05), Row("b", {"before": Point(0.1)})]
    spots = [
        Spot(0, f"point 0, {name}", Point(1.0), Point(0.3, 0.2, 0.4), "untouched"),
        Spot(1, "point 1", Point(2.0), Point(0.1)),
    ]
    panels = (
        Panel(0, "point 0", {"bias": "0.3"}, "fairmend lm pick a --point 0"),
        Panel(1, name, {name: name}, f"pick {name}"),
    )
    return Page(
        title=name,
        kind="Repair of a test",
        headline="Better",
        tone="good",
        verdict=(f"{name} is treated better.",),
        warnings=(f"Look at {name}.",),
        facts=(Fact(name, "0.1 → 0.2", name),),
        chapters=(
            Chapter("Figures", (draw_forest(bars, f"figures of {name}"), Table(name, columns, rows, (name,)))),
            Chapter(f"Groups of {name}", (draw_bars(bars, "bars"), Shown("", ("a", name), ((name, "2"), ("10", "1"))))),
            Chapter("Front", (Choice(draw_front(spots, "front", name, name), panels),)),
            Chapter("Units", (draw_map([Units(name, [0.0, 0.5, 1.0, 2.0])], "head", "map"), Stored(SVG, name))),
            Chapter("Notes", (Notes((name,)), name, Code(name))),
            made_chapter({"session": {"command": f"fairmend {name}"}, "versions": {"numpy": "2"}}, {name: name}),
        ),
    )


def sheets(html: str) -> list[list[list[str]]]:
    """The CSV files that a report offers."""
    found = re.findall(r'href="data:text/csv;charset=utf-8;base64,([^"]*)"', html)
    return [list(csv.reader(io.StringIO(base64.b64decode(each).decode()))) for each in found]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_report(tmp_path / "report.html", [page()])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_quiet_fits_a_phone_and_has_no_barriers(look, file, scheme):
    sight = look(file, width=360, scheme=scheme)
    assert sight.page.title() == "women - fairmend"
    assert sight.page.evaluate("document.documentElement.scrollWidth") == 360
    assert sight.breaches() == []
    sight.page.locator(".spot").last.click()
    assert sight.breaches() == []
    assert sight.deeds == []


def test_a_heading_sorts_its_table_by_figures_not_letters(look, file):
    sight = look(file)
    table = sight.page.locator("table").first
    head = table.get_by_role("columnheader", name="people")
    orders = {}
    for turn in ("ascending", "descending"):
        head.get_by_role("button").press("Enter")
        assert head.get_attribute("aria-sort") == turn
        orders[turn] = table.locator("tbody td:nth-child(2)").all_inner_texts()
    assert orders == {"ascending": ["4", "30", "1,200"], "descending": ["1,200", "30", "4"]}
    table.get_by_role("columnheader", name="group").get_by_role("button").click()
    assert head.get_attribute("aria-sort") is None
    assert table.locator("tbody th").all_inner_texts() == ["b", "c", "women"]


@pytest.mark.parametrize("script", [True, False])
def test_a_point_that_is_picked_shows_its_figures_and_its_command(look, file, script):
    sight = look(file, script=script)
    spot = sight.page.locator("svg a").first
    panel = sight.page.locator(".panel").first
    assert not panel.is_visible()
    spot.hover()
    assert "point 0" in spot.locator("title").inner_html()
    spot.focus()
    sight.page.keyboard.press("Enter")
    assert panel.is_visible()
    assert "fairmend lm pick a --point 0" in panel.inner_text()
    assert sight.page.locator(".panel").last.is_hidden()
    if script:
        assert spot.get_attribute("aria-current") == "true"
        panel.get_by_role("button", name="Copy").click()
        panel.get_by_role("button", name=re.compile("Copied|Selected")).wait_for()
    assert sight.deeds == []


def test_without_script_everything_is_there(look, file):
    sight = look(file, script=False)
    text = sight.page.inner_text("body")
    for said in ("Better", "women is treated better.", "0.1 → 0.2", "1,200", "Figures", "version of numpy"):
        assert said in text
    assert sight.page.locator("a[download]").count() == 3


def test_a_table_is_downloaded_as_csv(look, file):
    sight = look(file)
    with sight.page.expect_download() as waiting:
        sight.page.locator("a[download]").first.click()
    assert waiting.value.suggested_filename == "fairmend-p1-1-2.csv"
    assert Path(waiting.value.path()).read_bytes() == b"name,n,value\nwomen,1200,0.5\nb,30,0.25\nc,4,\n"


def test_it_prints(look, file):
    sight = look(file, scheme="dark")
    assert sight.page.pdf(format="A4").startswith(b"%PDF")
    sight.page.emulate_media(media="print")
    assert sight.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert sight.page.locator("nav").is_hidden()


def test_several_results_stand_side_by_side_at_the_top(look, tmp_path):
    sight = look(write_report(tmp_path / "all.html", [page("first"), page("second")]))
    assert sight.page.locator(".beside h2").all_inner_texts() == ["first", "second"]
    sight.page.get_by_role("link", name="second").first.click()
    assert sight.page.url.endswith("#p2")
    identities = sight.page.eval_on_selector_all("[id]", "found => found.map(each => each.id)")
    assert len(identities) == len(set(identities))
    assert sight.breaches() == []


def test_names_do_nothing_and_break_nothing(look, tmp_path):
    pages = [page(name) for name in HOSTILE.values()]
    file = write_report(tmp_path / "report.html", pages)
    assert file.stat().st_size < 2_000_000
    sight = look(file, width=360)
    assert sight.page.title() == f"{len(HOSTILE)} results - fairmend"
    assert sight.page.evaluate("document.documentElement.scrollWidth") == 360
    for link in sight.page.locator("svg a").all():
        link.hover(force=True)
    assert sight.page.locator("script").count() == 1
    attributes = sight.page.evaluate("[...document.querySelectorAll('*')].flatMap(e => e.getAttributeNames())")
    assert [name for name in attributes if name.startswith("on") or name == "style"] == []
    links = sight.page.eval_on_selector_all("a", "found => found.map(each => each.getAttribute('href'))")
    assert [link for link in links if not link.startswith(("#", "data:text/csv"))] == []
    assert sight.page.title() == f"{len(HOSTILE)} results - fairmend"
    assert sight.deeds == []


@pytest.mark.parametrize("kind", HOSTILE)
def test_names_are_shown_whole_and_visibly(kind):
    html = render([page(HOSTILE[kind])]).decode()
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", html)
    for command in ("<img src=http", "<script>doc", "<h1><", "49", "\u202e"):
        assert command not in html.replace("<h1><bdi", "").replace("<h1><details", "")
    if kind == "long":
        assert HOSTILE[kind] in html


@pytest.mark.parametrize("kind", HOSTILE)
def test_csv_files_hold_no_formulas(kind):
    found = sheets(render([page(HOSTILE[kind])]).decode())
    assert len(found) == 3
    cells = [cell for sheet in found for row in sheet for cell in row]
    assert [cell for cell in cells if cell[:1] in tuple("=+-@\t\r")] == []


def test_the_policy_allows_the_page_its_own_script_only(look, file):
    attack = "<script>document.title='owned'</script><img src='http://evil.example/x'><div style='color:red'>"
    file.write_text(file.read_text().replace("</main>", f"{attack}</main>"))
    sight = look(file)
    assert sight.page.title() == "women - fairmend"
    assert any("Content Security Policy" in deed for deed in sight.deeds)
