"""No child outlives its owner, whenever that one is killed."""

import os
import signal
import subprocess
import sys

import pytest

CHILD = "import sys; from edgeloop.processes.children import end_with_parent; end_with_parent(int(sys.argv[1]))"


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
@pytest.mark.parametrize(
    ("parent", "code"), [(os.getpid, 0), (lambda: 2**22 + 1, -signal.SIGKILL)], ids=["lives", "gone"]
)
def test_a_child_ends_also_if_its_parent_ended_before_linux_was_asked(parent, code):
    """A number above 2^22, which no process has, stands for a parent that ended between the fork and prctl."""
    assert subprocess.run([sys.executable, "-c", CHILD, str(parent())], timeout=60).returncode == code
