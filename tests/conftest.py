"""Fixtures shared by all tests, and what is said at their end."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

NO_BROWSER = "no browser: install Debian's chromium, or name a Chromium in $FAIRMEND_BROWSER"
# Without them Chromium asks its makers for updates; as root in a container it needs to do without its sandbox.
_FLAGS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
_FLAGS += ("--disable-component-update", "--disable-sync")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of published networks and data that parity tests read; it is not part of the repository."""
    named = os.environ.get("FAIRMEND_DATA")
    folder = Path(named) if named else Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"parity data not found at {folder}: set FAIRMEND_DATA to the folder that holds it")
    return folder


@dataclass
class Sight:
    """A file as a browser shows it, and what it did beyond that: requests, errors, dialogs."""

    page: Any
    deeds: list[str] = field(default_factory=list)

    def breaches(self) -> list[str]:
        """What axe-core finds wrong for people who use a keyboard or a screen reader."""
        from axe_playwright_python.sync_playwright import Axe

        return [
            f"{rule['id']}: {node['html']}"
            for rule in Axe().run(self.page).response["violations"]
            for node in rule["nodes"]
        ]


Look = Callable[..., Sight]


@pytest.fixture(scope="module")  # a driver holds an event loop, which tests of other modules may want to run
def browser() -> Iterator[Any]:
    """Headless Chromium of the system."""
    path = os.environ.get("FAIRMEND_BROWSER") or shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(NO_BROWSER)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=path, args=list(_FLAGS))
        yield started
        started.close()


@pytest.fixture
def look(browser: Any) -> Iterator[Look]:
    """Opens a file in a browser: `look(path, width=360, scheme="dark", script=False)`."""
    contexts: list[Any] = []

    def show(file: Path, *, width: int = 1200, scheme: str = "light", script: bool = True) -> Sight:
        options: Any = {"color_scheme": scheme, "java_script_enabled": script}
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, **options))
        page, own = contexts[-1].new_page(), file.resolve().as_uri()
        sight = Sight(page)
        page.on("console", lambda message: sight.deeds.append(message.text))
        page.on("pageerror", lambda error: sight.deeds.append(str(error)))
        page.on("dialog", lambda dialog: (sight.deeds.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda sent: sent.url.startswith((own, "data:")) or sight.deeds.append(sent.url))
        page.goto(own)
        return sight

    yield show
    for context in contexts:
        context.close()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    """Say in the last line which tests had no browser, so that nobody takes them for passed."""
    yield
    reporter: Any = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        left_out = sum(NO_BROWSER in str(report.longrepr) for report in reporter.stats.get("skipped", ()))
        if left_out:
            reporter.write_line(f"{left_out} tests of report.html were left out: {NO_BROWSER}", yellow=True)
