"""Make the repository's README, CONTRIBUTING and CHANGELOG pages of the site, and let links work there as on GitHub."""

import os
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
REPOSITORY = "https://github.com/ser-batch/ser-batch"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages whose text stands outside docs/."""
    for name, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Point the links of a page to where the site has their targets."""
    return site_links(markdown, ROOT if page.file.src_uri in PAGES.values() else DOCS)


def site_links(markdown: str, folder: Path) -> str:
    """Return `markdown`, which stands in `folder`, with its relative links as the site needs them."""

    def link(match: re.Match[str]) -> str:
        path, anchor = match["path"], match["anchor"] or ""
        return f"]({site_path(Path(os.path.normpath(folder / path)), path)}{anchor})"

    return re.sub(r"\]\((?P<path>[^)#:\s]+)(?P<anchor>#[^)\s]*)?\)", link, markdown)


def site_path(target: Path, written: str) -> str:
    """Return where the site has the file `target`; what does not exist stays as written, for MkDocs to report."""
    if not target.exists():
        return written
    if target.is_relative_to(DOCS):
        return target.relative_to(DOCS).as_posix()
    name = target.relative_to(ROOT).as_posix()
    return PAGES.get(name) or f"{REPOSITORY}/{'tree' if target.is_dir() else 'blob'}/main/{name}"
