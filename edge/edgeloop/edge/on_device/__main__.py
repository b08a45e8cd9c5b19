"""The program that a device runs: one file, made of this folder and the ground floor (program.py).

python agent.pyz PART ARGUMENT...        PART: one of PARTS; each loads only what it needs
"""

from __future__ import annotations

import importlib
import sys

PARTS = {
    "agent": "edgeloop.edge.on_device.agent",
    "survey": "edgeloop.edge.on_device.survey",
    "keep": "edgeloop.edge.on_device.keep",
    "answer": "edgeloop.edge.on_device.answer",
}


def main() -> None:
    importlib.import_module(PARTS[sys.argv[1]]).main(sys.argv[2:])


if __name__ == "__main__":
    main()
