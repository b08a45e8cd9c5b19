"""The program that a device runs: one file, made of this folder and the ground floor (program.py).

python agent.pyz PART ARGUMENT...        PART: one of PARTS; each loads only what it needs
"""

from __future__ import annotations

import importlib
import sys

PARTS = {
    "agent": "edgeloop.edge.on_device.models.agent",
    "survey": "edgeloop.edge.on_device.models.survey",
    "keep": "edgeloop.edge.on_device.releases.keep",
    "answer": "edgeloop.edge.on_device.answers.answer",
}


def main() -> None:
    importlib.import_module(PARTS[sys.argv[1]]).main(sys.argv[2:])


if __name__ == "__main__":
    main()
