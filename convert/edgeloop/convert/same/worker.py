"""Run as a program by `same.py`: compares two models in a process of its own."""

from __future__ import annotations

import os

if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

    from edgeloop.convert.same.compare_models import compare_models
    from edgeloop.processes.job_child import serve

    serve(compare_models)
