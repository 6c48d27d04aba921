"""The documentation site builds without a warning and without a network, and its reference leaves nothing out."""

import html
import importlib
import os
import re
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from fairmend.cli.main import app

ROOT = Path(__file__).parents[2]
PACKAGES = ("fairmend", *(f"fairmend.{name}" for name in ("tabular", "language", "search", "surrogates", "runs")))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it, where nothing on a network answers."""
    out = tmp_path_factory.mktemp("site")
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(out)],
        cwd=ROOT,
        env=os.environ | nowhere | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (built.returncode, built.stdout + built.stderr) == (0, "")
    return out


def named_commands(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from named_commands(inner, f"{path} {name}")


@pytest.mark.xdist_group("site")
def test_every_public_name_is_in_the_reference(site: Path) -> None:
    inventory = zlib.decompress((site / "objects.inv").read_bytes().split(b"\n", 4)[4]).decode()
    documented = {line.split()[0] for line in inventory.splitlines()}
    public = {
        f"{package}.{name}"
        for package in PACKAGES
        for name in importlib.import_module(package).__all__
        if name[0] != "_"
    }

    assert public - documented == set()


@pytest.mark.xdist_group("site")
def test_every_command_and_every_option_is_in_the_reference(site: Path) -> None:
    page = (site / "reference" / "commands.html").read_text()
    sections = {
        html.unescape(re.sub(r"<[^>]+>", "", heading)).removesuffix("¶"): text
        for heading, text in re.findall(r"<h[1-6][^>]*>(.*?)</h[1-6]>(.*?)(?=<h[1-6]|</article>)", page, re.DOTALL)
    }
    everything = dict(named_commands(typer.main.get_command(app), "fairmend"))

    assert (everything.keys() - {"fairmend"}) - sections.keys() == set()
    for path, command in everything.items():
        section = sections["Commands" if path == "fairmend" else path]
        missing = [word for each in command.params for word in each.opts[:1] if word[0] == "-" and word not in section]
        assert missing == [], path


@pytest.mark.xdist_group("site")
def test_no_page_fetches_anything_from_elsewhere(site: Path) -> None:
    fetched = re.compile(r"<(?:script|img|iframe|link)\b[^>]*\b(?:src|href)=\"?https?://[^\s\">]+")

    assert [match[0] for page in site.rglob("*.html") for match in fetched.finditer(page.read_text())] == []
