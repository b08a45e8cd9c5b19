"""The body of a predict request in, a model's inputs out. Python 3.9 syntax.

TF Serving's two forms, and a single sample as `edgeloop run` reads it from a line:

    {"instances": [SAMPLE, ...]}    row format: one value, or {input: value}, per sample
    {"inputs": VALUE}               column format: whole tensors, batch axis included
    SAMPLE                          with the batch axis of the manifest's shape it is a batch, without it one sample

Source: https://www.tensorflow.org/tfx/serving/api_rest (request format)
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeloop.bundle import TensorSpec
from edgeloop.canonical import refuse_constant
from edgeloop.errors import DataError
from edgeloop.http.predict_api.tensors import check_batch_sizes, check_shape, first_words, named_arrays

INSTANCES, INPUTS, SIGNATURE = "instances", "inputs", "signature_name"


@dataclass(frozen=True)
class PredictRequest:
    """A request whose values are not read yet. `row_format`: its value is `instances`, else `inputs`; `signature` None:
    the server chooses."""

    value: Any
    row_format: bool
    signature: str | None

    def inputs(self, specs: Sequence[TensorSpec]) -> dict[str, np.ndarray]:
        """The inputs, batch first. Raises DataError as `read_instances` and `read_columns`."""
        return read_instances(specs, self.value) if self.row_format else read_columns(specs, self.value)


def parse_request(body: bytes) -> PredictRequest:
    """TF Serving's request.

    Raises:
        DataError: Not JSON, neither of the two forms, or both.
    """
    document = parse_json(body)
    forms = [name for name in (INSTANCES, INPUTS) if isinstance(document, dict) and name in document]
    if len(forms) != 1:
        found = "both" if forms else "neither"
        raise DataError(
            f'found {found} of "instances" and "inputs"', advice='Send {"instances": [...]} or {"inputs": ...}.'
        )
    return PredictRequest(document[forms[0]], forms == [INSTANCES], document.get(SIGNATURE))


def parse_json(data: bytes) -> Any:
    """A JSON document, without NaN and Infinity.

    Raises:
        DataError: It is none, or nested too deep to be read.
    """
    try:
        return json.loads(data.decode("utf-8"), parse_constant=refuse_constant)
    except (ValueError, RecursionError) as e:
        raise DataError(
            f"the input is not JSON ({first_words(e)})", advice="Send a nested list, or an object of them."
        ) from e


def read_sample(specs: Sequence[TensorSpec], document: Any) -> tuple[dict[str, np.ndarray], bool]:
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


def read_instances(specs: Sequence[TensorSpec], instances: Any) -> dict[str, np.ndarray]:
    """The row format: a list of samples. Raises as `read_sample`."""
    if not isinstance(instances, list) or not instances:
        raise DataError(
            '"instances" is not a list or is empty', advice="Send one value, or {input: value}, per sample."
        )
    samples = [named_arrays(specs, one) for one in instances]
    try:
        inputs = {spec.name: np.stack([one[spec.name] for one in samples]) for spec in specs}
    except ValueError as e:
        raise DataError(
            f"the instances differ in shape ({e})", advice="Send samples of one shape in each request."
        ) from e
    for spec in specs:
        check_shape(spec, inputs[spec.name])
    return inputs


def read_columns(specs: Sequence[TensorSpec], document: Any) -> dict[str, np.ndarray]:
    """The column format: whole tensors, batch axis included. Raises as `read_sample`."""
    inputs = named_arrays(specs, document)
    for spec in specs:
        check_shape(spec, inputs[spec.name])
    check_batch_sizes(inputs)
    return inputs
