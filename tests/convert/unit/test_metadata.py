"""TFLite metadata: written by the schema's ids, read back from any bytes without harm.

golden/metadata/bare.tflite is a softmax layer of a [batch, 2, 2, 3] image; tflite_support.tflite is the same file after
tflite-support 0.4.4's own image_classifier.MetadataWriter (mean 127.5, std 127, labels cat and dog).
"""

import io
import os
import random
import struct
import subprocess
import sys
import zipfile
from dataclasses import replace

import pytest

from edgeloop.bundle import Kind, Signature, TensorSpec
from edgeloop.convert.forms.describe import describe
from edgeloop.convert.forms.metadata import with_metadata
from edgeloop.convert.forms.table_writer import write_table
from edgeloop.errors import ModelError, OptionsError
from edgeloop.files.flatbuffer import read_tflite
from edgeloop.files.metadata import SCHEMA, Color, Content, Metadata, TensorMetadata, read_metadata
from edgeloop.files.stored_zip import packed_files

IMAGE = TensorMetadata(
    name="image",
    description="a photograph",
    content=Content.IMAGE,
    color=Color.RGB,
    size=(3, 2),
    mean=(0.0, 1.0, 2.0),
    std=(1.0, 2.0, 4.0),
    low=(0.0,),
    high=(255.0,),
)
CLASSES = TensorMetadata(name="p", labels=("cat", "köpek"))
FACTS = Metadata(
    name="pets",
    description="which pet it is",
    version="3",
    author="me",
    license="Apache-2.0",
    inputs=(IMAGE,),
    outputs=(CLASSES,),
)


@pytest.fixture(scope="module")
def golden(root):
    return root / "tests" / "golden" / "metadata"


@pytest.fixture(scope="module")
def bare(golden):
    return (golden / "bare.tflite").read_bytes()


@pytest.fixture(scope="module")
def written(bare):
    return with_metadata(bare, FACTS)


def test_what_is_written_is_read_back(written):
    assert read_metadata(written) == FACTS


def test_a_model_without_metadata_says_nothing(bare):
    assert read_metadata(bare) is None


def test_a_file_that_tflite_support_wrote_is_read(golden):
    read = read_metadata((golden / "tflite_support.tflite").read_bytes())
    (image,), (classes,) = read.inputs, read.outputs
    assert (read.name, image.name, classes.name) == ("ImageClassifier", "image", "probability")
    assert (image.content, image.color, image.mean, image.std) == (Content.IMAGE, Color.RGB, (127.5,), (127.0,))
    assert image.high == pytest.approx((127.5 / 127,))
    assert (classes.content, classes.low, classes.high) == (Content.FEATURE, (0,), (1,))
    assert classes.labels == ("cat", "dog")


def test_metadata_takes_the_place_of_what_was_there(golden, written):
    first = with_metadata((golden / "tflite_support.tflite").read_bytes(), FACTS)
    assert read_metadata(first) == FACTS
    assert with_metadata(written, FACTS) == written


def test_the_smallest_metadata_byte_by_byte():
    # ids: name 0, description 1, version 2 of 8 fields. Offsets count from where they stand.
    assert write_table(SCHEMA, "ModelMetadata", {"name": "m", "version": "1"}, b"M001") == b"".join(
        [
            b"\x14\0\0\0",  # the root table lies 20 bytes on
            b"M001",  # file_identifier
            b"\0\0",  # so that what follows is aligned
            b"\x0a\0\x0c\0",  # vtable: its 10 bytes, the table's 12,
            b"\x08\0\0\0\x04\0",  # name at 8, description absent, version at 4
            b"\x0a\0\0\0",  # the table: its vtable lies 10 bytes before
            b"\x08\0\0\0",  # version 8 bytes on
            b"\x0c\0\0\0",  # name 12 bytes on
            b"\x01\0\0\0",
            b"1\0\0\0",
            b"\x01\0\0\0",
            b"m\0\0\0",
        ]
    )


def test_every_field_has_the_id_of_the_schema(written):
    """Walked with flatbuffers' own table by the ids of metadata_schema.fbs, not by ours."""
    from ai_edge_litert.schema_py_generated import Model
    from flatbuffers import encode
    from flatbuffers import number_types as n
    from flatbuffers.table import Table

    model = Model.GetRootAs(written, 0)
    (entry,) = (
        model.Metadata(i) for i in range(model.MetadataLength()) if model.Metadata(i).Name() == b"TFLITE_METADATA"
    )
    data = model.Buffers(entry.Buffer()).DataAsNumpy().tobytes()
    assert data[4:8] == b"M001"

    def at(table, id):
        assert table.Offset(4 + 2 * id), f"field {id} is absent"
        return table.Pos + table.Offset(4 + 2 * id)

    def text(table, id):
        return table.String(at(table, id)).decode()

    def child(table, id):
        return Table(data, table.Indirect(at(table, id)))

    def children(table, id):
        start, count = table.Vector(table.Offset(4 + 2 * id)), table.VectorLen(table.Offset(4 + 2 * id))
        return [Table(data, table.Indirect(start + 4 * i)) for i in range(count)]

    def floats(table, id):
        start, count = table.Vector(table.Offset(4 + 2 * id)), table.VectorLen(table.Offset(4 + 2 * id))
        return [table.Get(n.Float32Flags, start + 4 * i) for i in range(count)]

    meta = Table(data, encode.Get(n.UOffsetTFlags.packer_type, data, 0))
    texts = {0: "pets", 1: "which pet it is", 2: "3", 4: "me", 5: "Apache-2.0", 7: "1.0.0"}
    assert {id: text(meta, id) for id in texts} == texts
    (graph,) = children(meta, 3)
    (image,), (classes,) = children(graph, 2), children(graph, 3)
    assert (text(image, 0), text(image, 1)) == ("image", "a photograph")
    content = child(image, 3)
    assert content.Get(n.Uint8Flags, at(content, 0)) == 2  # ContentProperties.ImageProperties
    properties = child(content, 1)
    assert properties.Get(n.Int8Flags, at(properties, 0)) == 1  # ColorSpaceType.RGB
    size = child(properties, 1)
    assert [size.Get(n.Uint32Flags, at(size, id)) for id in (0, 1)] == [2, 3]  # width, height
    (unit,) = children(image, 4)
    assert unit.Get(n.Uint8Flags, at(unit, 0)) == 1  # ProcessUnitOptions.NormalizationOptions
    assert [floats(child(unit, 1), id) for id in (0, 1)] == [[0, 1, 2], [1, 2, 4]]  # mean, std
    assert [floats(child(image, 5), id) for id in (0, 1)] == [[255], [0]]  # max, min
    assert child(classes, 3).Get(n.Uint8Flags, at(child(classes, 3), 0)) == 1  # FeatureProperties
    (file,) = children(classes, 6)
    assert text(file, 0) == "labels.txt"
    assert file.Get(n.Int8Flags, at(file, 2)) == 2  # AssociatedFileType.TENSOR_AXIS_LABELS


def test_labels_are_stored_in_a_zip_behind_the_model(written):
    with zipfile.ZipFile(io.BytesIO(written)) as archive:
        (entry,) = archive.infolist()
        assert archive.testzip() is None
        assert (entry.filename, entry.compress_type, entry.date_time) == (
            "labels.txt",
            zipfile.ZIP_STORED,
            (1980, 1, 1, 0, 0, 0),
        )
        assert archive.read(entry) == "cat\nköpek".encode()


def test_two_sets_of_labels_are_two_files(bare):
    image = replace(IMAGE, labels=("red", "green", "blue"))
    made = with_metadata(bare, replace(FACTS, inputs=(image,)))
    with zipfile.ZipFile(io.BytesIO(made)) as archive:
        assert archive.namelist() == ["labels_1.txt", "labels_2.txt"]
    assert read_metadata(made).inputs[0].labels == ("red", "green", "blue")


def test_audio_asks_for_a_younger_parser(bare):
    # AudioProperties came with version 1.3.0 of the schema
    sound = TensorMetadata(name="image", content=Content.AUDIO, sample_rate_hz=16000, channels=1)
    made = with_metadata(bare, replace(FACTS, inputs=(sound,)))
    assert read_metadata(made).inputs == (sound,)
    assert b"1.3.0" in made and b"1.3.0" not in with_metadata(bare, FACTS)


def test_a_tensor_nobody_described_has_its_name_alone(bare):
    read = read_metadata(with_metadata(bare, Metadata(name="m")))
    assert (read.inputs, read.outputs) == ((TensorMetadata(name="image"),), (TensorMetadata(name="p"),))


def test_the_model_itself_is_untouched(bare, written):
    before, after = read_tflite(bare), read_tflite(written)
    assert (after.graphs, after.signatures) == (before.graphs, before.signatures)


def test_another_process_with_another_hash_seed_writes_the_same_bytes(golden, written):
    code = (
        "import sys; sys.path.insert(0, sys.argv[2]); from pathlib import Path; import test_metadata as t;"
        "sys.stdout.buffer.write(t.with_metadata(Path(sys.argv[1]).read_bytes(), t.FACTS))"
    )
    command = [sys.executable, "-c", code, golden / "bare.tflite", os.path.dirname(__file__)]  # noqa: PTH120
    done = subprocess.run(
        command, capture_output=True, check=True, timeout=60, env={**os.environ, "PYTHONHASHSEED": "7"}
    )
    assert done.stdout == written


def test_metadata_that_shares_a_weights_buffer_leaves_the_weights_alone(bare):
    """A hostile file may give the name TFLITE_METADATA to the buffer of its weights."""
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils as utils

    tree = utils.read_model_from_bytearray(bytearray(bare))
    entry = schema.MetadataT()
    entry.name, entry.buffer = b"TFLITE_METADATA", max(t.buffer for t in tree.subgraphs[0].tensors)
    tree.metadata.append(entry)
    hostile = bytes(utils.convert_object_to_bytearray(tree))
    made = with_metadata(hostile, FACTS)
    assert read_tflite(made).graphs == read_tflite(bare).graphs
    assert read_metadata(made) == FACTS


REFUSED = {
    "a tensor the model does not have": (
        replace(FACTS, inputs=(replace(IMAGE, name="img"),)),
        "'img', which the model does not have",
    ),
    "three labels for two classes": (
        replace(FACTS, outputs=(replace(CLASSES, labels=("a", "b", "c")),)),
        "3 labels do not fit 'p' \\[any, 2\\]",
    ),
    "a label of two lines": (replace(FACTS, outputs=(replace(CLASSES, labels=("a", "b\nc")),)), "not one line of text"),
    "an empty label": (replace(FACTS, outputs=(replace(CLASSES, labels=("a", " ")),)), "not one line of text"),
    "a mean without std": (replace(FACTS, inputs=(replace(IMAGE, std=()),)), "equally many numbers"),
    "std 0": (replace(FACTS, inputs=(replace(IMAGE, std=(0.0,)),)), "no std of 0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_the_model_is_refused(bare, case):
    facts, message = REFUSED[case]
    with pytest.raises(OptionsError, match=message):
        with_metadata(bare, facts)


def test_a_file_that_is_no_tflite_is_refused():
    for call in (read_metadata, lambda data: with_metadata(data, FACTS)):
        with pytest.raises(ModelError, match=r"not a \.tflite file"):
            call(b"PK\3\4 and so on")


PIXELS = {
    "pixels as they are": ((0, 255), ((0,), (1,))),
    "dark pixels as they are": ((3, 97), ((0,), (1,))),
    "pixels / 255": ((0, 1), ((0,), (255,))),
    "pixels / 127.5 - 1": ((-1, 0.99), ((127.5,), (127.5,))),
    "standardised pixels": ((-2.1, 2.6), ((), ())),
    "nothing known": (None, ((), ())),
}


@pytest.mark.parametrize("case", PIXELS)
def test_the_normalisation_an_app_needs_follows_from_the_range(case):
    range, expected = PIXELS[case]
    spec = TensorSpec("image", (None, 4, 6, 3), "float32", Kind.IMAGE, range, "NHWC")
    (image,) = describe("m", [Signature((spec,), ())]).inputs
    assert (image.mean, image.std) == expected
    assert (image.content, image.color, image.size) == (Content.IMAGE, Color.RGB, (4, 6))


def test_a_manifest_says_what_the_metadata_says():
    sound = TensorSpec("clip", (None, 16000), "float32", Kind.AUDIO, (-1, 1), sample_rate_hz=16000)
    classes = TensorSpec("p", (None, 2), "float32", labels=("yes", "no"))
    signatures = [Signature((sound,), (classes,)), Signature((TensorSpec("clip", (8, 16000), "float32"),), ())]
    facts = describe("kws", signatures, version="2")
    assert (facts.name, facts.version, len(facts.inputs)) == ("kws", "2", 1)
    assert facts.inputs[0] == TensorMetadata(
        name="clip",
        description="audio of 16000, values from -1 to 1",
        content=Content.AUDIO,
        sample_rate_hz=16000,
        channels=1,
        low=(-1.0,),
        high=(1.0,),
    )
    assert facts.outputs[0].labels == ("yes", "no")


def packed(metadata, buffer=0):
    """A model of nothing but this metadata buffer."""
    schema = {
        "Model": (*[("", "")] * 4, ("buffers", "[Buffer]"), ("", ""), ("metadata", "[Metadata]")),
        "Buffer": (("data", "text"),),
        "Metadata": (("name", "text"), ("buffer", "u32")),
    }
    values = {"buffers": [{"data": metadata}], "metadata": [{"name": "TFLITE_METADATA", "buffer": buffer}]}
    return write_table(schema, "Model", values, b"TFL3")


def bomb(length):
    """Metadata whose one list of graphs names one graph `length` times, whose list of inputs names one tensor so."""
    root = struct.pack("<I4sHHHHHHI", 20, b"M001", 12, 8, 0, 0, 0, 4, 0)[:-4]  # ids 0..3, the fourth at 4
    root += struct.pack("<iI", 12, 4)  # the root table, its list right behind it
    graphs = struct.pack("<I", length)
    end = len(root) + 4 + 4 * length
    graph_at = end + 10
    graphs += b"".join(struct.pack("<I", graph_at - (len(root) + 4 + 4 * i)) for i in range(length))
    graph = struct.pack("<HHHHH", 10, 8, 0, 0, 4) + struct.pack("<iI", 10, 4) + struct.pack("<I", length)
    first = graph_at + 12
    tensor_at = first + 4 * length + 4
    graph += b"".join(struct.pack("<I", tensor_at - (first + 4 * i)) for i in range(length))
    return root + graphs + graph + struct.pack("<HH", 4, 4) + struct.pack("<i", 4)


def test_the_bomb_of_the_next_test_is_well_formed():
    assert len(read_metadata(packed(bomb(3))).inputs) == 3


def test_metadata_in_a_buffer_that_is_not_there_is_refused():
    with pytest.raises(ModelError, match="buffer 1 of 1"):
        read_metadata(packed(bomb(3), buffer=1))


def test_metadata_of_another_version_is_refused():
    with pytest.raises(ModelError, match="identifier b'M002', expected b'M001'"):
        read_metadata(packed(bomb(3).replace(b"M001", b"M002")))


def test_a_metadata_of_a_million_tensors_in_ten_kilobytes_is_refused_at_once():
    data = packed(bomb(1000))
    assert len(data) < 10_000
    with pytest.raises(ModelError, match="more to read"):
        read_metadata(data)


def zipped(entries, **how):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **how) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def test_a_zip_made_alone_and_put_behind_a_model_is_read(bare):
    files = {"b.txt": b"b", "labels.txt": b"x\ny"}
    assert packed_files(bare + zipped(files), ["labels.txt", "absent.txt"]) == {"labels.txt": b"x\ny"}


HOSTILE_ZIPS = {
    "a compressed file": (zipped({"l": b"0" * 100}, compression=zipfile.ZIP_DEFLATED), "compressed"),
    "two thousand files": (zipped({str(i): b"" for i in range(2000)}), "2000 files"),
    "five megabytes": (zipped({"l": b"0" * (5 << 20)}), "5242880 bytes"),
    "another content": (zipped({"l": b"cat"}).replace(b"cat", b"dog"), "damaged"),
    "a directory before the file": (zipped({"l": b"cat"})[30:], "no zip header"),
}


@pytest.mark.parametrize("case", HOSTILE_ZIPS)
def test_a_hostile_zip_is_refused(case):
    data, message = HOSTILE_ZIPS[case]
    with pytest.raises(ValueError, match=message):
        packed_files(data, ["l"])


def test_a_label_file_that_is_not_packed_in_is_named(written):
    with pytest.raises(ModelError, match=r"names the label file 'labels\.txt', which is not packed in"):
        read_metadata(written[: written.index(b"PK\3\4")])


def test_two_thousand_damaged_files_are_read_or_refused(golden, written):
    """Flipped bits, absurd offsets, cuts. Seeds fixed; the whole metadata and zip are hit, not the weights."""
    rng = random.Random(5)
    sources = [written, (golden / "tflite_support.tflite").read_bytes()]
    spots = [range(0, len(s), 4) for s in sources]
    outcomes = {"read": 0, "refused": 0}
    for _ in range(2_000):
        which = rng.randrange(2)
        data = bytearray(sources[which])
        for _ in range(rng.randint(1, 4)):
            at = rng.choice(spots[which])
            kind = rng.randrange(4)
            if kind == 0:
                data[at] ^= 1 << rng.randrange(8)
            elif kind == 1:
                data[at : at + 4] = rng.choice([b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\0\0\0\0"])
            elif kind == 2:
                data[at : at + 4] = struct.pack("<I", rng.randrange(len(data) * 2))
            else:
                del data[at + 8 * rng.randrange(200) + 8 :]
                break
        try:
            read = read_metadata(bytes(data))
            assert read is None or isinstance(read, Metadata)
            outcomes["read"] += 1
        except ModelError:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 200
