"""What the site shows beside the pages of this folder: the README, pages of other folders, and the generated reference.

Commands come from the command line itself and Python names from the packages, so that neither is written twice.
"""

import os
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from typer.cli import get_docs_for_click

from fairmend.cli.main import app

ROOT = Path(__file__).parents[1]
PACKAGES = ("fairmend", *(f"fairmend.{name}" for name in ("tabular", "language", "search", "surrogates", "runs")))

# Pages of the site that are files elsewhere, and stay readable there.
ELSEWHERE = {
    "index.md": ROOT / "README.md",
    "benchmarks.md": ROOT / "benchmarks" / "README.md",
    "contributing.md": ROOT / "CONTRIBUTING.md",
    "security.md": ROOT / "SECURITY.md",
    "changelog.md": ROOT / "CHANGELOG.md",
}

_LINK = re.compile(r"\[([^\]]*)\]\((?!\w+:|#)([^)#\s]+)(#[^)]*)?\)")


def commands_page() -> str:
    """Every command with every option, as `--help-all` has them."""
    group = typer.main.get_command(app)
    text = get_docs_for_click(obj=group, ctx=typer.Context(group), name="fairmend", title="Commands")
    return re.sub(r" \[default: (.*)\]$", r" Default: `\1`", text, flags=re.MULTILINE)


def python_page(package: str) -> str:
    """The public names of a package, documented by their docstrings."""
    module = import_module(package)
    names = "\n\n".join(f"::: {package}.{name}" for name in sorted(module.__all__, key=str.lower) if name[0] != "_")
    summary = (module.__doc__ or "").strip().splitlines()[0]
    return f"# {package}\n\n{summary}\n\n{names}\n"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not in this folder."""
    pages = {name: place.read_text(encoding="utf-8") for name, place in ELSEWHERE.items()}
    pages["reference/commands.md"] = commands_page()
    pages |= {f"reference/python/{package}.md": python_page(package) for package in PACKAGES}
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, **_: Any) -> str:
    """Let links lead to the same page of the site; what the site does not have is named without a link."""
    docs = Path(config.docs_dir)
    place = ELSEWHERE.get(page.file.src_uri, docs / page.file.src_uri)
    known = {path: name for name, path in ELSEWHERE.items()}

    def moved(link: re.Match[str]) -> str:
        text, target, anchor = link[1], (place.parent / link[2]).resolve(), link[3] or ""
        if not target.exists():
            return link[0]  # mkdocs says so
        if target in known or target.is_relative_to(docs):
            uri = known.get(target) or target.relative_to(docs).as_posix()
            return f"[{text}]({os.path.relpath(uri, Path(page.file.src_uri).parent)}{anchor})"
        return text

    return _LINK.sub(moved, markdown)
