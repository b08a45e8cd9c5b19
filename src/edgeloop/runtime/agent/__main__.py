"""The program that a device runs: one file, made of the folders that travel (../program.py).

python agent.pyz MODULE ARGUMENT...        MODULE: below `edgeloop`, with a `main`; it loads only what it needs
"""

from __future__ import annotations

import importlib
import sys


def main() -> None:
    importlib.import_module(f"edgeloop.{sys.argv[1]}").main(sys.argv[2:])


if __name__ == "__main__":
    main()
