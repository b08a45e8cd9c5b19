"""TensorFlow Lite Micro: the planner by hand, then against the real one on real models.

tests/golden/targets/tflite_micro.json holds what PyPI's tflite-micro measured of the models in edgetpu_pairs.jsonl.gz:
head and tail of the arena, or what its kernels said when they refused.
"""

import gzip
import json
from pathlib import Path

import pytest
from graph_facts_json import from_json

from edgeloop.files.arena import Buffer, arena_bytes, plan
from edgeloop.files.graph_facts import GraphFacts, Step, Value
from edgeloop.files.targets.cortex_m import CortexMReason, refusals, report
from edgeloop.files.targets.tflite_micro_memory import persistent_bytes

GOLDEN = Path(__file__).parents[2] / "golden" / "targets"
PAIRS = [json.loads(line) for line in gzip.decompress((GOLDEN / "edgetpu_pairs.jsonl.gz").read_bytes()).splitlines()]
BRANCHES = json.loads((GOLDEN / "tflite_micro_branches.json").read_text())  # models of ten lines with IF and WHILE
OPERATORS = json.loads((GOLDEN / "tflite_micro_operators.json").read_text())  # models of one operator each
MEASURED = json.loads((GOLDEN / "tflite_micro.json").read_text())["models"]


def buffer(size_bytes, first, last) -> Buffer:
    return Buffer(size_bytes=size_bytes, first=first, last=last)


def test_the_largest_is_placed_first_and_the_others_where_a_gap_is_large_enough():
    # by size: 100 at 0; 60 lives with it: at 100; 40 lives with the 60 alone: before it, at 0
    assert plan([buffer(40, 2, 3), buffer(100, 0, 1), buffer(60, 1, 2)]) == ([0, 0, 100], 160)


def test_of_equal_sizes_the_later_is_placed_first():
    assert plan([buffer(16, 0, 1), buffer(16, 0, 1)]) == ([16, 0], 32)


def test_buffers_that_never_meet_share_a_place():
    assert plan([buffer(64, 0, 0), buffer(64, 1, 1), buffer(64, 2, 2)]) == ([0, 0, 0], 64)


def test_no_buffers_need_nothing():
    assert plan([]) == ([], 0)


def value(*shape: int, dtype: str = "int8", **more) -> Value:
    return Value(shape=shape, dtype=dtype, **more)


def graph(*steps: Step, values: tuple[Value, ...]) -> GraphFacts:
    return GraphFacts(values=values, steps=steps, inputs=(0,), outputs=(len(values) - 1,))


def test_input_and_output_of_a_step_live_at_once_in_multiples_of_16_bytes():
    # 100 -> 50 -> 10 bytes, rounded up 112, 64, 16: the first two meet, and so do the last two
    made = graph(
        Step(op="RELU", inputs=(0,), outputs=(1,)),
        Step(op="RELU", inputs=(1,), outputs=(2,)),
        values=(value(100), value(50), value(10)),
    )
    assert arena_bytes(made, made.steps) == 112 + 64


def test_weights_and_variables_take_no_place_among_the_activations():
    made = graph(
        Step(op="SVDF", inputs=(0, 1, 2), outputs=(3,)),
        values=(value(16), value(999, constant_bytes=999), value(999, variable=True), value(16)),
    )
    assert arena_bytes(made, made.steps) == 32


def test_a_free_dimension_beside_the_batch_leaves_the_arena_unknown():
    made = graph(Step(op="RELU", inputs=(0,), outputs=(1,)), values=(value(1, 1, free=True), value(1, 1, free=True)))
    assert report([made], 100)["arena_bytes"] is None


def one(op, *inputs: Value, out: Value, custom: bool = False) -> GraphFacts:
    places = tuple(range(len(inputs)))
    return graph(Step(op=op, inputs=places, outputs=(len(inputs),), custom=custom), values=(*inputs, out))


FLOAT = value(1, 8, dtype="float32")
REFUSED = {
    "an operator it lacks": (one("TOPK_V2", value(8), out=value(2)), CortexMReason.OPERATOR),
    "a custom one": (one("PosenetDecoderOp", value(8), out=value(2), custom=True), CortexMReason.OPERATOR),
    "a builtin name as custom": (one("ADD", value(8), out=value(8), custom=True), CortexMReason.OPERATOR),
    "uint8": (one("RELU", value(8, dtype="uint8"), out=value(8, dtype="uint8")), CortexMReason.DTYPE),
    "float16 weights": (
        one("DEQUANTIZE", value(8, dtype="float16", constant_bytes=16), out=FLOAT),
        CortexMReason.DTYPE,
    ),
    "weights of 8 bits for floats": (
        one("FULLY_CONNECTED", FLOAT, value(4, 8, constant_bytes=32), out=FLOAT),
        CortexMReason.DTYPE,
    ),
    "an exponential of 8 bits": (one("EXP", value(8), out=value(8)), CortexMReason.FLOAT),
    "a free height": (one("RELU", value(1, 1, free=True), out=value(1, 1)), CortexMReason.DYNAMIC),
    "eleven to join": (one("CONCATENATION", *[value(1, 1)] * 11, out=value(1, 11)), CortexMReason.INPUTS),
}


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused_for_that_reason(case):
    made, reason = REFUSED[case]
    (refusal,) = refusals(made)
    assert refusal is not None
    assert refusal.why is reason


@pytest.mark.parametrize(
    "made",
    [
        one("FULLY_CONNECTED", FLOAT, value(4, 8, dtype="float32", constant_bytes=128), out=FLOAT),
        one("QUANTIZE", value(8, dtype="uint8"), out=value(8)),
        one("TFLite_Detection_PostProcess", value(8), out=FLOAT, custom=True),
        one("SignalRfft", value(8, dtype="int16"), out=value(8, dtype="int16"), custom=True),
        one("CONCATENATION", *[value(1, 1)] * 10, out=value(1, 10)),
    ],
    ids=lambda made: made.steps[0].op,
)
def test_it_is_supported(made):
    assert refusals(made) == (None,)


def test_flash_is_the_file_and_the_arena_head_and_tail():
    found = report([one("RELU", value(16), out=value(16))], 4321)
    assert found["flash_bytes"] == 4321
    assert found["activations_bytes"] == 32
    assert found["arena_bytes"] == 32 + found["persistent_bytes"]


def branching(then: GraphFacts, other: GraphFacts) -> list[GraphFacts]:
    """A file whose first graph reads a flag (0) and data (1), and chooses one of two graphs for them."""
    choose = Step(op="IF", inputs=(0, 1), outputs=(2,), options={"then_subgraph_index": 1, "else_subgraph_index": 2})
    first = GraphFacts(
        values=(value(1, dtype="bool"), value(64), value(64)), steps=(choose,), inputs=(0, 1), outputs=(2,)
    )
    return [first, then, other]


def test_the_graphs_that_control_flow_calls_are_planned_in_its_time():
    wide = GraphFacts(
        values=(value(64), value(1024), value(64)),
        steps=(Step(op="EXP", inputs=(0,), outputs=(1,)), Step(op="SUM", inputs=(1,), outputs=(2,))),
        inputs=(0,),
        outputs=(2,),
    )
    graphs = branching(wide, one("RELU", value(64), out=value(64)))
    # while `wide` runs: flag 16, data 64, result 64, and of its own 1024 beside its input or output of 64
    assert arena_bytes(graphs[0], graphs[0].steps, graphs) == 16 + 64 + 64 + 1024 + 64
    assert report(graphs, 1)["total"] == 4  # IF, EXP, SUM, RELU
    assert arena_bytes(graphs[0], graphs[0].steps) == 16 + 64 + 64


def test_an_operator_in_a_called_graph_is_refused_and_one_of_another_signature_is_not():
    lacking, fine = one("TOPK_V2", value(64), out=value(64)), one("RELU", value(64), out=value(64))
    assert report(branching(lacking, fine), 1)["supported"] == 2
    beside = report([fine, lacking], 1)
    assert (beside["supported"], beside["total"]) == (1, 1)
    assert "TOPK_V2" in beside["arena_unknown"]  # the interpreter keeps all graphs of a file


def test_a_graph_that_calls_itself_or_nothing_is_damage():
    graphs = branching(one("RELU", value(64), out=value(64)), one("RELU", value(64), out=value(64)))
    graphs[1] = graphs[0]
    with pytest.raises(ValueError, match="a graph calls itself"):
        arena_bytes(graphs[0], graphs[0].steps, graphs)
    with pytest.raises(ValueError, match="does not have"):
        report(branching(graphs[2], graphs[2])[:2], 1)


def test_graphs_that_call_two_others_each_are_not_followed_along_every_path():
    def calling(then, other):
        choose = Step(
            op="IF", inputs=(0,), outputs=(1,), options={"then_subgraph_index": then, "else_subgraph_index": other}
        )
        return GraphFacts(values=(value(1), value(1)), steps=(choose,), inputs=(0,), outputs=(1,))

    end = one("RELU", value(1), out=value(1))
    graphs = [*(calling(k + 1, k + 1) for k in range(40)), end]  # 2^40 paths
    with pytest.raises(ValueError, match="call each other more than 1000 times, or 50 deep"):
        report(graphs, 1)
    deep = [*(calling(k + 1, 60) for k in range(60)), end]
    with pytest.raises(ValueError, match="or 50 deep"):
        report(deep, 1)


@pytest.mark.parametrize("name", BRANCHES)
def test_the_arena_of_branches_and_loops_is_the_real_interpreters(name):
    graphs, measured = [from_json(graph) for graph in BRANCHES[name]["graphs"]], BRANCHES[name]
    found = report(graphs, 1)
    assert found["activations_bytes"] == measured["head"]
    assert found["persistent_bytes"] == measured["tail"]


def test_the_planned_activations_are_those_of_the_real_planner_to_the_byte():
    heads = [(from_json(PAIRS[m["pair"]]["facts"]), m["head"]) for m in MEASURED if "head" in m]
    assert len(heads) == 66
    assert [arena_bytes(g, g.steps) for g, _ in heads] == [head for _, head in heads]


def test_the_rest_of_the_arena_is_what_the_real_interpreter_takes_to_the_byte():
    tails = [(persistent_bytes([from_json(PAIRS[m["pair"]]["facts"])]), m["tail"]) for m in MEASURED if "tail" in m]
    assert len(tails) == 66
    assert [estimate for estimate, _ in tails] == [tail for _, tail in tails]


def test_what_each_kernel_keeps_is_what_the_real_interpreter_takes_for_a_model_of_that_operator():
    found = {name: persistent_bytes([from_json(g) for g in m["graphs"]]) for name, m in OPERATORS.items()}
    assert found == {name: m["tail"] for name, m in OPERATORS.items()}
    assert len(found) > 80


def test_a_kernel_that_is_not_in_the_table_leaves_the_rest_unknown_and_is_named():
    found = report([one("SignalRfft", value(8, dtype="int16"), out=value(8, dtype="int16"), custom=True)], 100)
    assert (found["persistent_bytes"], found["arena_bytes"], found["activations_bytes"]) == (None, None, 32)
    assert "SignalRfft" in found["arena_unknown"]


def test_by_hand_the_structures_of_a_model_of_one_operator_stand_behind_each_other():
    # allocators 104 + 72 + 272 + 16, one graph 24, two tensors 2 * 24, one node 64; RELU's 28 bytes at a multiple of
    # 16: 600 + 28 -> 640; then pointers of input and output, 8 each at a multiple of 16, and a tensor of 64 bytes each:
    # 656 + 64 = 720 + 8 -> 736 + 64 = 800
    assert persistent_bytes([one("RELU", value(16), out=value(16))]) == 800


def test_a_model_is_supported_where_the_real_interpreter_ran_it():
    said = [not any(refusals(from_json(PAIRS[m["pair"]]["facts"]))) for m in MEASURED]
    assert said == ["refused" not in m for m in MEASURED]
    assert 0 < sum(said) < len(said)
