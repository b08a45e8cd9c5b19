"""The body of a predict request in, a model's inputs out. Python 3.9 syntax.

TF Serving's two forms, and a single sample as `edgeloop run` reads it from a line:

    {"instances": [SAMPLE, ...]}    row format: one value, or {input: value}, per sample
    {"inputs": VALUE}               column format: whole tensors, batch axis included
    SAMPLE                          with the batch axis of the manifest's shape it is a batch, without it one sample

A request is read sample by sample (json_text.py) and the first that does not fit refuses it, so that no request holds
up the others for longer than one sample takes.

Source: https://www.tensorflow.org/tfx/serving/api_rest (request format)
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeloop.bundle import TensorSpec
from edgeloop.canonical import refuse_constant
from edgeloop.errors import DataError
from edgeloop.http.predict_api.json_text import JsonText
from edgeloop.http.predict_api.tensors import (
    check_batch_sizes,
    check_sample,
    check_shape,
    first_words,
    named_arrays,
    to_array,
)

INSTANCES, INPUTS, SIGNATURE = "instances", "inputs", "signature_name"
SAMPLES = 1 << 16  # of one request
CHARS_A_NUMBER = 64  # a float64 has 24 digits and signs at most; the rest is for spaces of an indented text
CHARS = 4096  # of a sample whatever its shape: keys, and numbers of an exact decimal
OTHER_CHARS = 1 << 16  # of a member that is neither inputs nor instances

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class PredictRequest:
    """`inputs` are batch first. `row_format`: they came as `instances`; `signature` None: the server chooses."""

    inputs: Arrays
    row_format: bool
    signature: str | None


def read_request(
    body: bytes, specs: Sequence[TensorSpec], before_each: Callable[[], None] = lambda: None
) -> PredictRequest:
    """TF Serving's request, for a model with these inputs. `before_each` sample it may raise what ends the reading.

    Raises:
        DataError: Not JSON, neither of the two forms, or both; more than SAMPLES samples; other names, shapes or types
            than the signature's, or values that are not numbers. The first that is found.
    """
    try:
        return _read_request(JsonText(body.decode("utf-8")), specs, before_each)
    except (ValueError, RecursionError) as e:
        raise _no_json(e) from e


def parse_json(data: bytes) -> Any:
    """A JSON document, without NaN and Infinity.

    Raises:
        DataError: It is none, or nested too deep to be read.
    """
    try:
        return json.loads(data.decode("utf-8"), parse_constant=refuse_constant)
    except (ValueError, RecursionError) as e:
        raise _no_json(e) from e


def read_sample(specs: Sequence[TensorSpec], document: Any) -> tuple[Arrays, bool]:
    """One sample or one batch; a sample is given a batch axis of 1.

    Returns:
        The inputs, batch first, and whether they came as a batch.

    Raises:
        DataError: Other names, shapes or types than the signature's, or values that are not numbers.
    """
    inputs, with_batch = {}, set()
    for spec, array in zip(specs, named_arrays(specs, document).values()):
        is_batch = array.ndim == len(spec.shape)
        inputs[spec.name] = array if is_batch else array[np.newaxis]
        check_shape(spec, inputs[spec.name])
        with_batch.add(is_batch)
    if len(with_batch) > 1:
        raise DataError(
            "some inputs have a batch axis and some have none", advice="Give one to all inputs or to none of them."
        )
    check_batch_sizes(inputs)
    return inputs, with_batch.pop()


def _read_request(text: JsonText, specs: Sequence[TensorSpec], before_each: Callable[[], None]) -> PredictRequest:
    inputs: Arrays = {}
    forms, signature = [], None
    if text.next() != "{":
        text.value(OTHER_CHARS)  # raises where it is not JSON at all
    for key in text.members() if text.next() == "{" else ():
        if key not in (INSTANCES, INPUTS):
            value = text.value(OTHER_CHARS)
            signature = value if key == SIGNATURE else signature
            continue
        forms.append(key)
        if len(forms) == 1:
            read = _instances if key == INSTANCES else _columns
            inputs = read(text, specs, before_each)
        else:
            break
    if len(forms) != 1:
        raise DataError(
            f'found {"both" if forms else "neither"} of "instances" and "inputs"',
            advice='Send {"instances": [...]} or {"inputs": ...}.',
        )
    text.end()
    return PredictRequest(inputs, forms == [INSTANCES], signature)


def _instances(text: JsonText, specs: Sequence[TensorSpec], before_each: Callable[[], None]) -> Arrays:
    """The row format: a list of samples."""
    samples: dict[str, list[np.ndarray]] = {spec.name: [] for spec in specs}
    chars = [_sample_chars(spec) for spec in specs]
    limit = None if None in chars else sum(filter(None, chars))
    if text.next() == "[":
        for number in text.elements():
            before_each()
            _count(number)
            for spec, array in zip(specs, named_arrays(specs, text.value(limit)).values()):
                _append(spec, samples[spec.name], array)
    if not samples[specs[0].name]:
        raise DataError(
            '"instances" is not a list or is empty', advice="Send one value, or {input: value}, per sample."
        )
    inputs = {name: np.stack(arrays) for name, arrays in samples.items()}
    for spec in specs:
        check_shape(spec, inputs[spec.name])
    return inputs


def _columns(text: JsonText, specs: Sequence[TensorSpec], before_each: Callable[[], None]) -> Arrays:
    """The column format: whole tensors, batch axis included."""
    if text.next() != "{":
        if len(specs) > 1:
            named_arrays(specs, [])  # raises what was expected
        return {specs[0].name: _column(text, specs[0], before_each)}
    by_name = {spec.name: spec for spec in specs}
    found: Arrays = {}
    for key in text.members():
        if key == "npy" and len(specs) == 1 and key not in by_name:
            found[specs[0].name] = to_array(specs[0], {key: text.value()})
            check_shape(specs[0], found[specs[0].name])
        elif key in by_name:
            found[key] = _column(text, by_name[key], before_each)
        else:
            named_arrays(specs, {**found, key: None})  # raises: it is no input
    if set(found) != set(by_name):
        named_arrays(specs, found)
    check_batch_sizes(found)
    return {spec.name: found[spec.name] for spec in specs}


def _column(text: JsonText, spec: TensorSpec, before_each: Callable[[], None]) -> np.ndarray:
    """One tensor: a list sample by sample, anything else (`{"npy": ...}`, a number) at once."""
    if text.next() != "[" or not spec.shape:
        array = to_array(spec, text.value())
    else:
        samples: list[np.ndarray] = []
        for number in text.elements():
            before_each()
            _count(number)
            _append(spec, samples, to_array(spec, text.value(_sample_chars(spec))))
        array = np.stack(samples) if samples else np.empty((0, *(size or 0 for size in spec.shape[1:])))
    check_shape(spec, array)
    return array


def _append(spec: TensorSpec, samples: list[np.ndarray], array: np.ndarray) -> None:
    check_sample(spec, array)
    if samples and samples[0].shape != array.shape:
        raise DataError(
            f"the samples of input {spec.name!r} differ in shape ({list(samples[0].shape)} and {list(array.shape)})",
            advice="Send samples of one shape in each request.",
        )
    samples.append(array)


def _count(number: int) -> None:
    if number >= SAMPLES:
        raise DataError(f"the request has more than {SAMPLES} samples", advice="Send fewer samples at a time.")


def _sample_chars(spec: TensorSpec) -> int | None:
    """Characters that one sample may have; None where its size is free."""
    sizes = spec.shape[1:]
    return None if None in sizes else CHARS + CHARS_A_NUMBER * math.prod(size or 0 for size in sizes)


def _no_json(e: Exception) -> DataError:
    return DataError(f"the input is not JSON ({first_words(e)})", advice="Send a nested list, or an object of them.")
