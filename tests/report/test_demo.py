"""The reports of `make demo` and `make demo-toxicity`, in a browser; `.ci/run` says where they are."""

import os
from pathlib import Path

import pytest

from ..conftest import Look

REPAIRS = ("network", "language-model", "toxicity")


@pytest.fixture
def demo() -> Path:
    if "FAIRMEND_DEMO" not in os.environ:
        pytest.skip("the demo was not made, or $FAIRMEND_DEMO does not say where")
    return Path(os.environ["FAIRMEND_DEMO"])


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("repair", REPAIRS)
def test_the_report_of_a_repair_is_whole_quiet_and_without_barriers(
    demo: Path, look: Look, repair: str, scheme: str
) -> None:
    file = demo / repair / "report.html"
    assert file.stat().st_size < 2_000_000
    sight = look(file, width=360, scheme=scheme)
    page = sight.page
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert page.locator(".verdict.good").count() == 1
    assert page.locator(".facts").count() == 1
    assert page.locator("figure > svg").count() >= 3
    head = page.locator("thead th").nth(1)
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    spot = page.locator("svg a").first
    if spot.count():
        spot.focus()
        page.keyboard.press("Enter")
        assert page.locator(".panel:visible").count() == 1
    assert sight.breaches() == []
    assert page.pdf(format="A4").startswith(b"%PDF")
    assert sight.deeds == []
