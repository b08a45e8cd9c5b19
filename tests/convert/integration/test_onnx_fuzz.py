"""Mutated .onnx files: one of our errors or a source that answers; no other exception, no crash, no hang.

EDGELOOP_FUZZ=N makes `make soak` take N mutations; a failure names its seed.
"""

import os
from collections import Counter

import pytest

pytest.importorskip("onnx")
pytest.importorskip("tensorflow")

from mutated_files import opened
from mutated_onnx import mutated_model
from onnx_exports import EXPORTS
from sweeps import swept

from edgeloop.processes.sandbox import Limits

SEEDS = int(os.environ.get("EDGELOOP_FUZZ", "2000"))  # `make test` takes 100
OF_A_CHILD = 100  # files: TensorFlow keeps some memory of every graph, and the child's is limited
LIMIT_BYTES = Limits().read_bytes  # the product ends the child that reads a file there too, and says so
NETS = (
    *("residual_of_equal_sizes", "embedding_with_the_mask_of_bert", "lstm_of_10_steps", "gru_of_free_length"),
    *("u_net_with_resize_and_transposed_convolutions", "channel_shuffle_and_slices_by_computed_sizes"),
    *("attention_by_einsum", "quantize_and_dequantize", "dynamically_quantized_linear", "head_of_a_yolo"),
    *("loop_of_free_length", "branch_chosen_at_run_time", "weights_stored_in_float16"),
)


@swept("seeds", 100, SEEDS, pytest.mark.soak)
@pytest.mark.timeout(7200)
def test_a_mutated_onnx_file_is_answered_or_refused_and_nothing_else(tmp_path, seeds):
    models = [EXPORTS[name]()[0] for name in NETS]
    found, count = [], Counter()
    for first in range(0, seeds, OF_A_CHILD):
        paths = []
        for seed in range(first, min(first + OF_A_CHILD, seeds)):
            paths.append(tmp_path / f"{seed}.onnx")
            paths[-1].write_bytes(mutated_model(models[seed % len(models)], seed))
        answers = opened(paths, tmp_path, LIMIT_BYTES)
        count.update(kind for kind, _ in answers)
        found += [(path.name, *answer) for path, answer in zip(paths, answers, strict=True)]
        for path in paths:
            path.unlink()
    ended = [answer for answer in found if answer[1] not in ("opened", "refused")]
    assert all(answer[1:] == ("killed", "memory") for answer in ended) and len(ended) <= seeds / 500, ended
    assert not [answer for answer in found if answer[1] == "refused" and "\n" in answer[2]]
    assert count["opened"] > seeds / 20 and count["refused"] > seeds / 3, count  # the mutations reach what they should
