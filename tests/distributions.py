"""Builds wheels and sdists, as pip does."""

import subprocess
import sys


def build(kind, source, folder):
    """`kind` is wheel or sdist; hatchling packs the files below `source`, and the archive lands in `folder`.

    Raises:
        CalledProcessError: hatchling refused; its words are in `stderr`.
    """
    hatchling = f"import sys; from hatchling.build import build_{kind}; build_{kind}(sys.argv[1])"
    command = [sys.executable, "-c", hatchling, str(folder)]
    subprocess.run(command, cwd=source, check=True, capture_output=True, text=True, timeout=120)
    (path,) = folder.glob("edgeloop-*.tar.gz" if kind == "sdist" else "edgeloop-*.whl")
    return path
