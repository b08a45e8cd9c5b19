"""When memory is given back between the steps of a conversion."""

import pytest

from edgeloop.convert import memory


@pytest.mark.parametrize(
    ("resident_bytes", "collections"),
    [(1_000_000_000, 0), (1_200_000_000, 1), (0, 1)],  # 0: a system that does not say
)
def test_a_process_that_holds_little_is_left_as_it_is(monkeypatch, resident_bytes, collections):
    seen = []
    monkeypatch.setattr(memory, "resident_bytes", lambda pid: resident_bytes)
    monkeypatch.setattr(memory.gc, "collect", lambda: seen.append(0))
    memory.give_back()
    assert len(seen) == collections
