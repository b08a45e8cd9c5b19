"""The documents hold together: links lead somewhere, and what they name exists."""

import re
from collections import Counter
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


def test_no_entry_of_the_changelog_stands_there_twice_or_in_two_versions(root):
    """A merge by union keeps the entry of both sides where both changed it."""
    entries = [line for line in (root / "CHANGELOG.md").read_text().splitlines() if line.startswith("- ")]
    beginnings = Counter(entry[:80] for entry in entries)
    assert [beginning for beginning, count in beginnings.items() if count > 1] == []


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
    assert len(names) > 40 and "test_" not in re.sub(r"`test_\w+`", "", text), "a row names tests, not their file"
    assert [name for name in names if f"def {name}(" not in defined] == []


# the code that a folder's README describes
CODE = {
    "convert": ("convert/edgeloop/convert",),
    "edge": ("edge/edgeloop/edge",),
    "federated": ("federated/edgeloop/federated",),
    "browser": ("browser/edgeloop/browser", "browser/web/src"),
    "cloud": ("cloud/edgeloop/cloud",),
}


def file_rows(text: str) -> list[tuple[list[str], list[str]]]:
    """Of each row of the tables below `## Files`: the names in its first cell, and those in the others."""
    section = re.split(r"^## ", text, flags=re.MULTILINE)
    (files,) = [part for part in section if part.startswith("Files")]
    rows = [line.split("|")[1:-1] for line in files.splitlines() if line.startswith("|")]
    return [(re.findall(r"`([^`]+)`", first), re.findall(r"`([^`]+)`", "|".join(rest))) for first, *rest in rows]


def ends_with(path: str, name: str) -> bool:
    return f"/{path}".endswith(f"/{name}")


def missing_files(rows: list[tuple[list[str], list[str]]], code: list[str], beside: Path) -> list[str]:
    """Names of the table that no file has: in the row of a folder, no file of that folder."""
    missing = []
    for first, rest in rows:
        folder = first[0] if len(first) == 1 and first[0].endswith("/") else ""
        for name in (name for name in (*first, *rest) if re.search(r"\.(py|ts)$", name)):
            found = (path for path in code if f"/{folder}" in f"/{path}" and ends_with(path, name))
            if not any(found) and not (beside / name).is_file():
                missing.append(f"{folder}: {name}" if folder else name)
        missing += [name for name in first if name.endswith("/") and not any(f"/{name}" in f"/{p}" for p in code)]
    return missing


def unnamed_files(rows: list[tuple[list[str], list[str]]], code: list[str]) -> list[str]:
    """Files that the table names neither by themselves nor by their folder."""
    names = [name for first, _ in rows for name in first]
    folders = [name for name in names if name.endswith("/")]
    return [
        path
        for path in code
        if not any(ends_with(path, name) for name in names)
        and not any(f"/{folder}" in f"/{path}" for folder in folders)
    ]


@pytest.mark.parametrize("folder", CODE)
def test_the_file_table_of_a_readme_names_every_file_of_its_folder_and_no_other(root, folder):
    code = [
        str(path.relative_to(root / base))
        for base in CODE[folder]
        for path in (root / base).rglob("*")
        if re.search(r"(\.py|(?<!\.d)\.ts)$", path.name) and "static" not in path.parts
    ]
    headers = {f"{base.partition('/')[2]}/" for base in CODE[folder]}  # a table may say in its head where it is
    rows = [
        (first, rest) for first, rest in file_rows((root / folder / "README.md").read_text()) if not headers & {*first}
    ]
    assert code and rows
    assert missing_files(rows, code, root / folder) == []
    assert unnamed_files(rows, code) == []


def test_a_row_that_is_wrong_would_be_seen():
    code = ["a.py", "deep/b.py", "deep/c.py"]
    assert missing_files([(["deep/"], ["a.py"])], code, Path("nowhere")) == ["deep/: a.py"]
    assert missing_files([(["gone/", "gone.py"], [])], code, Path("nowhere")) == ["gone.py", "gone/"]
    assert unnamed_files([(["deep/b.py"], ["a.py"])], code) == ["a.py", "deep/c.py"]


def test_every_message_of_the_page_on_troubleshooting_is_one_of_ours(root):
    sources = [path for portion in PORTIONS for path in (root / portion).rglob("*.py")]
    code = " ".join(re.sub(r'"\s*\n\s*f?"', "", path.read_text()) for path in sources)
    code = re.sub(r"\{[^{}]*\}", "…", code)
    shown = re.findall(r"^\| `([^`]+)` \(\d", (root / "docs/troubleshooting.md").read_text(), re.MULTILINE)
    assert len(shown) > 12
    parts = {
        part.strip() for message in shown for part in re.split("…|[.] ", message)
    }  # found and advice: two literals
    assert sorted(part for part in parts if part not in code) == []


def test_the_words_of_other_programs_stand_where_the_table_says(root):
    page = (root / "docs/architecture.md").read_text().partition("## Other programs' words")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([^`]+)` \| (.*?) \|", page, re.MULTILINE)
    assert len(rows) == 9
    for file, words in rows:
        text = (root / file).read_text()
        assert [word for word in re.findall(r"`([^`]+)`", words) if word not in text and word != "INFO :"] == []
