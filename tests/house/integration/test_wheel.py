"""What is installed is whole: the wheel holds what a user without a checkout needs, the sdist what builds it."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.parser import BytesParser

import pytest
from distributions import build

STATIC = "browser/edgeloop/browser/static"
IN_SDIST = {
    *("src", "convert", "edge", "federated", "browser", "cloud", "tests", "benchmarks", "docs", "scripts"),
    *("CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md", "pyproject.toml"),
    *("PKG-INFO", ".gitignore"),  # hatchling's own: it reads the patterns again when it builds from an sdist
}


def in_checkout(root, *more):
    """Names of all files under version control, and of those that would be."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *more]
    listed = subprocess.run(command, cwd=root, capture_output=True, timeout=30)
    if listed.returncode:
        pytest.skip("no git checkout: there is no list of the project's own files")
    return {name for name in listed.stdout.decode().split("\0") if (root / name).is_file()}


def metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return BytesParser().parsebytes(archive.read(name))


def test_every_module_and_every_lock_is_in_the_wheel(root, wheel):
    files = [path for path in root.glob("*/edgeloop/**/*") if path.suffix in {".py", ".in", ".txt"} and path.is_file()]
    expected = {path.relative_to(path.parents[-len(root.parts) - 1]).as_posix() for path in files}
    assert len(expected) > 30
    assert expected - set(zipfile.ZipFile(wheel).namelist()) == set()


def test_the_built_page_is_in_the_wheel_and_no_source_of_it(root, wheel):
    static = root / STATIC
    names = zipfile.ZipFile(wheel).namelist()
    built = {path.relative_to(static.parents[2]).as_posix() for path in static.rglob("*") if path.is_file()}
    assert "edgeloop/browser/static/page/index.html" in built
    assert built - set(names) == set()
    assert [name for name in names if "node_modules" in name or name.endswith((".ts", ".tsx"))] == []


def test_the_sdist_holds_the_project_and_the_built_page_and_nothing_else(root, sdist):
    with tarfile.open(sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    assert {name.partition("/")[0] for name in names} == IN_SDIST
    page = {path.relative_to(root).as_posix() for path in (root / STATIC).rglob("*") if path.is_file()}
    assert names - in_checkout(root) - page == {"PKG-INFO"}
    assert {name for name in in_checkout(root) | page if name.partition("/")[0] in IN_SDIST} <= names


@pytest.fixture(scope="module")
def unpacked(sdist, tmp_path_factory):
    """The folder that a user finds in the sdist."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (project,) = folder.iterdir()
    return project


def test_a_wheel_built_from_the_sdist_is_the_same_wheel(wheel, unpacked, tmp_path):
    second = build("wheel", unpacked, tmp_path)
    with zipfile.ZipFile(wheel) as ours, zipfile.ZipFile(second) as theirs:
        assert {i.filename: i.CRC for i in ours.infolist()} == {i.filename: i.CRC for i in theirs.infolist()}


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_without_the_page_nothing_is_built_and_the_message_says_how(unpacked, tmp_path, kind):
    shutil.copytree(unpacked, tmp_path / "project")
    shutil.rmtree(tmp_path / "project" / STATIC / "page")
    with pytest.raises(subprocess.CalledProcessError) as refused:
        build(kind, tmp_path / "project", tmp_path)
    said = " ".join((refused.value.stderr + refused.value.stdout).split())
    assert f"The browser page is not built: {STATIC}/ has no page/index.html, page/files.json. Run: make wheel" in said
    assert list(tmp_path.glob("edgeloop-*")) == []


def test_an_editable_installation_needs_no_page(unpacked, tmp_path):
    shutil.copytree(unpacked, tmp_path / "project")
    shutil.rmtree(tmp_path / "project" / STATIC)
    assert build("editable", tmp_path / "project", tmp_path).stat().st_size < 100_000


def test_the_metadata_says_where_it_runs_and_what_it_is(wheel):
    fields = metadata(wheel)
    pythons = [f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13)]
    assert set(pythons) < set(fields.get_all("Classifier"))
    assert fields["Requires-Python"] == ">=3.11" and fields["License-Expression"] == "Apache-2.0"
    assert {"tflite", "quantization", "federated learning"} < set(fields["Keywords"].split(","))


def test_no_link_of_the_description_needs_the_checkout(wheel):
    text = metadata(wheel).get_payload()
    assert "](" not in text.replace("](http", "")
    assert "`convert/README.md`" in text and "source distribution" in text


def test_federated_and_edge_ask_for_no_tensorflow(wheel):
    wanted = [line for line in metadata(wheel).get_all("Requires-Dist") if "extra ==" in line]
    for extra in ("federated", "edge", "browser"):
        assert [line for line in wanted if f"'{extra}'" in line and line.startswith(("tensorflow", "keras", "tf"))] == [
            line for line in wanted if f"'{extra}'" in line and line.startswith("tflite-runtime")
        ]


def test_an_installed_edgeloop_copies_itself_whole(wheel, tmp_path):
    installed, device = tmp_path / "installed", tmp_path / "device"
    zipfile.ZipFile(wheel).extractall(installed)  # what pip does with a wheel, programs aside
    copy = (
        "import sys; from pathlib import Path; sys.path[:0] = [sys.argv[1]];"
        "from edgeloop.setup import copy_edgeloop; copy_edgeloop(Path(sys.argv[2]))"
    )
    subprocess.run([sys.executable, "-c", copy, str(installed), str(device)], check=True, timeout=60)

    def files(folder):
        paths = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}

    assert files(device) == files(installed)
    # the copy stands alone: nothing but it and the standard library on the path
    look = "import sys; sys.path[:0] = [sys.argv[1]]; import edgeloop.errors as e; print(e.__file__)"
    found = subprocess.run(
        [sys.executable, "-I", "-S", "-c", look, str(device)], check=True, capture_output=True, text=True, timeout=60
    )
    assert found.stdout.startswith(str(device))
