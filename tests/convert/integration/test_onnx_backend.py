"""Which operators of ONNX convert, judged by onnx/onnx's own backend tests: the tables in docs/onnx.md are that.

make soak ARGS='-k onnx_backend -s'                          runs every test; -k "onnx_backend and Conv": its
EDGELOOP_WRITE_ONNX=1 make soak ARGS='-k onnx_backend -s'    writes the rows that it measures into the page
"""

from __future__ import annotations

import os
import re
from collections import Counter
from functools import cache

import pytest

pytest.importorskip("onnx")
pytest.importorskip("tensorflow")

from onnx import defs
from onnx_backend_tests import GROUPS, backend_cases, recorded_cases
from onnx_bench import Bench, judged

STANDARD = sorted({schema.name for schema in defs.get_all_schemas() if schema.domain == ""})
FUNCTIONS = {
    schema.name
    for schema in defs.get_all_schemas()
    if schema.domain == "" and (schema.has_function or schema.has_context_dependent_function)
}
NODE, BODIES, OTHERS, COMMON = "node", "node, written out as functions", "node, other domains", "the common ones of all"
SETS = (NODE, BODIES, OTHERS, *GROUPS[1:], COMMON)
SAMPLE = "pytorch-operator"
TABLES = {
    "operators": (STANDARD, "| operator | converts | tests right | of them with constants | what is not right |"),
    "sets": (SETS, "| tests | right | of them with constants | what is not right |"),
    "causes": (None, "| cause | tests |"),
}
MARKS = "<!-- {}: written by tests/convert/integration/test_onnx_backend.py -->", "<!-- end of {} -->"
WRITE = bool(os.environ.get("EDGELOOP_WRITE_ONNX"))
NAMES = [pytest.param(name, id=name, marks=pytest.mark.soak) for name in (*STANDARD, *SETS) if name != NODE]


@pytest.fixture(scope="module")
def outcome():
    """The outcome of a case by its name; measured once."""
    with Bench() as bench:
        yield cache(bench.outcome)


@pytest.fixture(scope="module")
def cases():
    """{operator or set: names of its cases}"""
    found = {name: [] for name in (*STANDARD, *SETS)}
    for case in backend_cases():
        found[row_of(case)].append(case.name)
        if case.common:
            found[COMMON].append(case.name)
    return found


def row_of(case):
    """The row in which a case counts: of its operator, else of its set."""
    group, _, name = case.name.partition("/")
    if group != "node":
        return group
    if "expanded" in name:
        return BODIES
    return case.operator if case.operator in STANDARD else OTHERS


def row(name, outcomes):
    right, constants = (
        sum(getattr(o, a) == v for o in outcomes) for a, v in (("result", "right"), ("constants", True))
    )
    share = f"{right} of {len(outcomes)}" if outcomes else "no test"
    cells = [share, str(constants or ""), said(Counter(short(o.why) for o in outcomes if o.result != "right"))]
    return [name, *([converts(name, right, len(outcomes))] if name in STANDARD else []), *cells]


def converts(operator, right, tests):
    """yes, partly or no; and how, where ONNX's own function stands in for one of ours."""
    from edgeloop.convert.onnx.operators import OPS

    if (operator not in OPS and operator not in FUNCTIONS) or (tests and not right):
        return "no"
    word = "yes" if right == tests else "partly"
    return word if operator in OPS else f"{word}, as the function that ONNX defines it by"


def said(reasons):
    """Reasons with their numbers, most frequent first."""
    ordered = sorted(reasons, key=lambda reason: (-reasons[reason], reason))
    return "; ".join(f"{reason} ({reasons[reason]})" for reason in ordered)


SHORT = (  # what a reason says, to how the page says it
    (r".*'tf\.(\w+)' op is neither a custom op nor a flex op.*", r"LiteRT has no \1 of these types"),
    (r"(\S+)( '.*')? cannot be imported: edgeloop does not have this operator", r"the operator \1"),
    (r"\S+( '.*')? cannot be imported: (.*)", r"\2"),
    (r"(an (in|out)put that is no tensor) .*", r"\1"),
    (
        r".*element type '(ui4|i4)'.*|.*Type INT4 is unsupported.*|.*Expected a numpy array of int8 for INT4.*",
        "4-bit tensors",
    ),
    (r"ValueError: Invalid tensor size\.", "an empty output, which LiteRT's Python interpreter does not return"),
    (r"TensorFlow's converter: .*", "refused by TensorFlow's converter"),
)


def short(why):
    """A reason without the name of a node, in one cell."""
    for pattern, words in SHORT:
        if re.fullmatch(pattern, why, re.DOTALL):
            why = re.sub(pattern, words, why, count=1, flags=re.DOTALL)
    return " ".join(why.replace("|", "/").replace(";", ",").split())[:120]


def reasons_of(cell):
    return Counter({reason: int(n) for reason, n in re.findall(r"(.+?) \((\d+)\)(?:; |$)", cell)})


def rows_of(text, table):
    """{first cell: all cells} of one table of the page."""
    body = text.partition(MARKS[0].format(table))[2].partition(MARKS[1].format(table))[0]
    cells = [[cell.strip() for cell in line[1:-1].split("|")] for line in body.strip().splitlines()[2:]]
    return {row[0]: row for row in cells}


def with_rows(text, table, rows):
    start, end = (mark.format(table) for mark in MARKS)
    order, head = TABLES[table]
    lines = [head, "|---" * (head.count("|") - 1) + "|"]
    listed = [name for name in order or rows if name in rows]
    lines += [
        "| " + " | ".join(rows[name]) + " |" for name in (*listed, *(name for name in rows if name not in listed))
    ]
    return "\n".join([text.partition(start)[0] + start, *lines, end + text.partition(end)[2]])


def summed(text):
    """The page, with what follows from its other rows: the sum of the operators, and the causes of all node tests."""
    operators, sets = rows_of(text, "operators"), rows_of(text, "sets")
    shares = [[int(n) for n in row[2].split(" of ")] for row in operators.values() if " of " in row[2]]
    right, tests = (sum(column) for column in zip(*shares, strict=True)) if shares else (0, 0)
    constants = sum(int(row[3] or 0) for row in operators.values())
    sets[NODE] = [NODE, f"{right} of {tests}", str(constants or ""), "the table of operators says it"]
    causes = sum((reasons_of(row[-1]) for row in (*operators.values(), *sets.values()) if row[0] != COMMON), Counter())
    ordered = sorted(causes, key=lambda reason: (-causes[reason], reason))
    text = with_rows(text, "sets", sets)
    return with_rows(text, "causes", {reason: [reason, str(causes[reason])] for reason in ordered})


def written(page, table, row):
    """The page with this row."""
    text = page.read_text()
    page.write_text(summed(with_rows(text, table, {**rows_of(text, table), row[0]: row})))


def test_the_page_has_a_row_for_each_operator_of_onnx_and_for_what_is_imported_besides(root):
    from edgeloop.convert.onnx.operators import OPS

    text = (root / "docs/onnx.md").read_text()
    others = [[name, "yes", "no test", "", ""] for name in sorted(OPS) if name not in STANDARD]
    if WRITE:
        kept = {name: row for name, row in rows_of(text, "operators").items() if name in STANDARD}
        text = summed(with_rows(text, "operators", {**kept, **{row[0]: row for row in others}}))
        (root / "docs/onnx.md").write_text(text)
    rows = rows_of(text, "operators")
    assert list(rows) == [*STANDARD, *(row[0] for row in others)]
    assert [row for row in rows.values() if row[0] not in STANDARD] == others  # tests of ours, in tests/convert
    assert list(rows_of(text, "sets")) == list(SETS)
    assert summed(with_rows(text, "operators", rows_of(text, "operators"))) == text


def test_an_operator_has_one_function_here():
    from edgeloop.convert.onnx.operators import TABLES

    count = Counter(name for table in TABLES for name in table.OPS)
    assert {name for name in count if count[name] > 1} == set()


def test_an_operator_converts_by_the_page_if_and_only_if_it_has_a_function_here(root):
    from edgeloop.convert.onnx.operators import OPS

    rows = rows_of((root / "docs/onnx.md").read_text(), "operators")
    converts = {name for name, row in rows.items() if row[1] in ("yes", "partly")}
    assert converts <= set(OPS)
    # a function may be of use only inside a graph: every test of SequenceInsert has a sequence at its ends
    assert all(rows[name][2].startswith("0 of") for name in set(OPS) - converts)


def test_what_pytorch_exported_is_right_where_the_page_says_so(root):
    found = row(SAMPLE, [judged(case) for case in recorded_cases(SAMPLE)])
    assert rows_of((root / "docs/onnx.md").read_text(), "sets")[SAMPLE] == found


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", NAMES)
def test_onnxs_tests_of_an_operator_are_right_where_the_page_says_so_and_none_is_wrong(root, outcome, cases, name):
    outcomes = [outcome(case) for case in cases[name]]
    for o in outcomes:
        if o.result != "right":
            print(f"{o.result} {o.case}: {o.why}", flush=True)
    page, table, found = root / "docs/onnx.md", "operators" if name in STANDARD else "sets", row(name, outcomes)
    if WRITE:
        written(page, table, found)
    assert rows_of(page.read_text(), table).get(name) == found
    assert not [o.case for o in outcomes if o.result in ("wrong", "crash")]
