"""A place of checkpoints holds whole ones alone, in a folder and in an object store."""

import pytest

from edgeloop.cloud.train.checkpoints.checkpoint_place import LATEST, MANIFEST, FolderPlace, open_place
from edgeloop.cloud.train.checkpoints.checkpoints import CheckpointOptions, check_empty
from edgeloop.errors import OptionsError, WriteError


def fill(folder):
    (folder / "variables.index").write_bytes(b"index")
    (folder / MANIFEST).write_bytes(b"{}")


@pytest.fixture(params=["folder", "store"])
def place(request, tmp_path):
    if request.param == "folder":
        yield open_place(tmp_path / "checkpoints")
    else:
        fsspec = pytest.importorskip("fsspec")
        yield open_place(f"memory://{tmp_path.name}")
        fsspec.filesystem("memory").store.clear()


def test_checkpoints_are_listed_the_oldest_first_and_the_newest_is_named(place):
    assert (place.names(), place.latest()) == ([], "")
    for name in ("step-00000002", "step-00000010"):
        place.publish(name, fill)
    assert place.names() == ["step-00000002", "step-00000010"]
    assert place.latest() == "step-00000010"
    with place.fetched("step-00000002") as folder:
        assert (folder / "variables.index").read_bytes() == b"index"
    place.remove("step-00000002")
    assert place.names() == ["step-00000010"]


def test_what_a_writer_failed_at_is_no_checkpoint(place):
    def fails(folder):
        (folder / "variables.index").write_bytes(b"index")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        place.publish("step-00000002", fails)
    assert (place.names(), place.latest()) == ([], "")


def test_a_folder_without_a_manifest_is_no_checkpoint_and_is_swept(tmp_path):
    fsspec = pytest.importorskip("fsspec")
    store, place = fsspec.filesystem("memory"), open_place(f"memory://{tmp_path.name}")
    store.pipe_file(f"/{tmp_path.name}/step-00000004/variables.index", b"half")
    place.publish("step-00000002", fill)
    assert place.names() == ["step-00000002"]
    place.sweep()
    assert not store.exists(f"/{tmp_path.name}/step-00000004/variables.index")
    assert place.names() == ["step-00000002"]


def test_the_rest_of_a_killed_writer_is_swept(tmp_path):
    (tmp_path / ".step-00000004.abc.new").mkdir()
    (tmp_path / LATEST).write_text("step-00000002")
    FolderPlace(tmp_path).sweep()
    assert [path.name for path in tmp_path.iterdir()] == [LATEST]


def test_an_address_that_fsspec_does_not_know_is_refused():
    pytest.importorskip("fsspec")
    with pytest.raises(OptionsError, match="checkpoints cannot be kept at nowhere://x"):
        open_place("nowhere://x")


def test_no_run_begins_where_another_one_keeps_its_checkpoints(tmp_path):
    options = CheckpointOptions(place=str(tmp_path / "kept"))
    check_empty(options, tmp_path / "run")
    open_place(tmp_path / "kept").publish("step-00000300", fill)
    with pytest.raises(WriteError, match=r"kept holds the checkpoints of another run\. Choose another"):
        check_empty(options, tmp_path / "run")
