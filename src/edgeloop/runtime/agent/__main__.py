"""The program that a device runs: one file, made of the folders that travel (../program.py).

python agent.pyz MODULE ARGUMENT...        MODULE: below `edgeloop`, with a `main`; it loads only what it needs
"""

from __future__ import annotations

import importlib
import sys


def main() -> None:
    try:
        module = importlib.import_module(f"edgeloop.{sys.argv[1]}")
    except ModuleNotFoundError as e:
        if (e.name or "").startswith("edgeloop"):
            raise
        from edgeloop.errors import install_line
        from edgeloop.processes.exit_status import NO_PACKAGE

        print(f"{e}. {install_line(e)}", file=sys.stderr)
        sys.exit(NO_PACKAGE)
    module.main(sys.argv[2:])


if __name__ == "__main__":
    main()
