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
    "text in one line": (r'" "\.join\(.*\.split\(\)\)', {"src/edgeloop/errors.py"}),
    "a program's last line": (r"splitlines\(\)\[-1\]|\blines\[-1\](?! ==)", {"src/edgeloop/errors.py"}),
    "the data folder": (r"platformdirs|environ[^\n]*XDG_DATA_HOME", {"src/edgeloop/runtime/user_data.py"}),
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
