"""What is done in one module, no other does by hand."""

import re

import pytest

from edgeloop.user_cache import FOLDER

PORTIONS = ("src", "convert", "edge", "federated", "browser", "cloud")
JOURNAL = "convert/edgeloop/convert/search/journal.py"  # it appends, a line a candidate, and replaces nothing
PLACES = {
    "a rename that is to last": (
        r"\bos\.(replace|rename|fsync)\(|mkstemp|\.rename\(",
        {"src/edgeloop/atomic.py", JOURNAL},
    ),
    "the hash of a file": (r"file_digest|sha256\([^()\s]+\)\.hexdigest", {"src/edgeloop/hashes.py"}),
    "the cache folder": (rf"XDG_CACHE_HOME|\"{FOLDER}\"", {"src/edgeloop/user_cache.py"}),
}


@pytest.mark.parametrize("what", PLACES)
def test_one_module_does_it(root, what):
    pattern, places = PLACES[what]
    found = {
        path.relative_to(root).as_posix()
        for portion in PORTIONS
        for path in (root / portion / "edgeloop").rglob("*.py")
        if re.search(pattern, path.read_text())
    }
    assert found == places
