"""Run as a program by `convert.py`: builds one bundle in a process of its own (`processes/job.py`)."""

from __future__ import annotations

import os
import sys

# Keras imports both while it loads, where they are installed, for wrappers and plots that no conversion uses: 1.4 of
# the 4.2 CPU seconds that TensorFlow takes to import
UNUSED = ("sklearn", "matplotlib")

if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # its second thread spins: twice the CPU of rounding, no faster
    for package in UNUSED:
        sys.modules[package] = None  # type: ignore[assignment]  # importing it now raises ModuleNotFoundError

    from edgeloop.convert.build import build
    from edgeloop.processes.job_child import serve

    serve(build)
