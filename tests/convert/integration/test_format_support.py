"""Which layers and operations convert to which format and scheme: the table in docs/formats.md is that.

make soak ARGS='-k every_form -s'                                measures every row; -k LSTM: those of that name
EDGELOOP_WRITE_FORMATS=1 make soak ARGS='-k every_form -s'       writes the rows that it measures into the page
"""

import os
import re

import pytest
from layer_nets import layer_nets

from edgeloop.bundle import Format, Scheme
from edgeloop.convert.convert import convert
from edgeloop.convert.options import ConvertOptions
from edgeloop.convert.training.trainable import TrainableOptions
from edgeloop.errors import EdgeloopError

TFLITE = (Scheme.FLOAT32, Scheme.FLOAT16, Scheme.DYNAMIC, Scheme.INT8, Scheme.INT16X8, Scheme.INT4)
COLUMNS = (*(scheme.value for scheme in TFLITE), "onnx", "onnx-int8", "tfjs", "trainable")
NOT_BY_DEFAULT = ("int16x8", "int4", "trainable")  # the default writes whichever of the others it can
YES, NO = "yes", "no"
MARKS = "<!-- rows: written by tests/convert/integration/test_format_support.py -->", "<!-- end of rows -->"
NETS = {net.name: net for net in layer_nets()}
SAMPLE = "Conv2D"  # it has every form, so two conversions measure it
ROWS = [pytest.param(SAMPLE, id="sample"), *(pytest.param(name, id=name, marks=pytest.mark.soak) for name in NETS)]


def alone(column, net, inputs):
    """What asks for one form and for as little else as possible."""
    if column == "tfjs":
        return ConvertOptions(to=(Format.TFJS,), reference=False)
    if column.startswith("onnx"):
        return ConvertOptions(to=(Format.ONNX,), calibration=inputs if "int8" in column else None, reference=False)
    trainable = TrainableOptions(batch=net.batch or 16) if column == "trainable" else None
    schemes = (Scheme.FLOAT32 if trainable else Scheme(column),)
    return ConvertOptions(
        to=(Format.TFLITE,), schemes=schemes, calibration=inputs, trainable=trainable, reference=False
    )


def written(model, out, options):
    """The ids of the variants that were written and agreed with the model on a runtime; those that save nothing."""
    try:
        bundle = convert(model, out, options).bundle
    except EdgeloopError as e:
        print(f"  {out.name}: {e}", flush=True)
        return set(), set()
    useless = {one.id for one in bundle.manifest.left_out if one.reason.startswith("not smaller")}
    return {v.id for v in bundle.variants if v.requires.runtimes}, useless


def every_form(net, folder):
    """{column: yes or no}"""
    model, inputs = net.save(folder), net.save_inputs(folder)
    common = {"calibration": inputs, "reference": False}
    found, _ = written(model, folder / "together", ConvertOptions(schemes=TFLITE, **common))
    asked = ["trainable"]
    if not found:  # one named form that fails fails all
        found, useless = written(model, folder / "default", ConvertOptions(**common))
        asked = [*NOT_BY_DEFAULT, *useless.intersection(COLUMNS)] if found else list(COLUMNS)
    for column in asked:
        found |= written(model, folder / column, alone(column, net, inputs))[0]
    print(f"{net.name}: {' '.join(column for column in COLUMNS if column in found)}", flush=True)
    return {column: YES if column in found else NO for column in COLUMNS}


def rows_of(text):
    """{name: {column: yes or no}} of the page."""
    found = re.findall(r"^\| (.+?) \| ((?:yes|no)(?: \| (?:yes|no))+) \|$", text, re.MULTILINE)
    return {name: dict(zip(COLUMNS, cells.split(" | "), strict=True)) for name, cells in found}


def with_rows(text, rows):
    """The page with these rows, in the order of NETS."""
    head, rest = text.split(MARKS[0])
    tail = rest.split(MARKS[1])[1]
    lines = [f"| layer or operation | {' | '.join(COLUMNS)} |", "|---|" + "---|" * len(COLUMNS)]
    lines += [f"| {name} | {' | '.join(rows[name][c] for c in COLUMNS)} |" for name in NETS if name in rows]
    return "\n".join([head + MARKS[0], *lines, MARKS[1] + tail])


def test_the_page_has_a_row_for_each_layer_and_operation_and_no_other(root):
    text = (root / "docs/formats.md").read_text()
    assert list(rows_of(text)) == list(NETS)
    assert with_rows(text, rows_of(text)) == text


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", ROWS)
def test_every_form_of_a_layer_or_operation_is_written_where_the_page_says_yes(root, tmp_path, name):
    pytest.importorskip("keras")
    page, found = root / "docs/formats.md", every_form(NETS[name], tmp_path)
    if os.environ.get("EDGELOOP_WRITE_FORMATS"):
        page.write_text(with_rows(page.read_text(), {**rows_of(page.read_text()), name: found}))
    assert rows_of(page.read_text())[name] == found
