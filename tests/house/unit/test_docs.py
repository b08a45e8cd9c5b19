"""The documents hold together: links lead somewhere, and what they name exists."""

import re
from pathlib import Path

import pytest

LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
PORTIONS = ("src", "convert", "edge", "federated", "browser/edgeloop", "cloud")


def documents(root: Path) -> list[Path]:
    return [*root.glob("*.md"), *root.glob("*/README.md"), *(root / "docs").glob("*.md")]


def anchors(text: str) -> set[str]:
    """As GitHub and MkDocs make them of headings."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in plain}


def broken_links(page: Path) -> list[str]:
    text = FENCE.sub("", page.read_text())
    found = []
    for match in LINK.finditer(text):
        target, _, anchor = (match[1] or match[2]).partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        file = (page.parent / target) if target else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file.read_text())):
            found.append(match[0])
    return found


def test_every_link_leads_to_a_file_and_a_heading_that_exist(root):
    pages = documents(root)
    assert len(pages) > 12
    broken = {str(page.relative_to(root)): broken_links(page) for page in pages}
    assert {page: links for page, links in broken.items() if links} == {}


@pytest.mark.parametrize("link", ["[a](nowhere.md)", "[a](#no-such-heading)", "![a](no.png)"])
def test_a_link_that_leads_nowhere_would_be_seen(tmp_path, link):
    (tmp_path / "page.md").write_text(f"# A heading\n[fine](#a-heading) {link}\n")
    assert broken_links(tmp_path / "page.md") == [link]


def test_every_environment_variable_of_the_code_stands_in_the_page_on_storage_and_no_other(root):
    sources = [path for portion in PORTIONS for path in (root / portion).rglob("*.py")]
    used = {name for path in sources for name in re.findall(r"\bEDGELOOP_[A-Z0-9_]+\b", path.read_text())}
    assert len(used) > 5
    rows = re.findall(r"^\| `(EDGELOOP_\w+)` \| (.+?) \|$", (root / "docs/storage.md").read_text(), re.MULTILINE)
    product = {name for name, meaning in rows if not meaning.startswith("Tests only")}
    assert product == used


def test_every_test_that_the_page_on_security_names_exists(root):
    text = (root / "docs/security.md").read_text()
    defined = "\n".join(path.read_text() for path in (root / "tests").rglob("test_*.py"))
    names = re.findall(r"`(test_\w+)`", text)
    files = re.findall(r"`(tests/[\w/]+\.py)`", text)
    assert len(names) > 15 and len(files) > 5
    assert [name for name in names if f"def {name}(" not in defined] == []
    assert [file for file in files if not (root / file).is_file()] == []
