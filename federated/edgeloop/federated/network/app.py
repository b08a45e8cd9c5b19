"""The app that `flwr run` sends out. It holds no code: its two components are modules of edgeloop itself."""

from __future__ import annotations

import json
from pathlib import Path

CONNECTION = "edgeloop"  # the name of our SuperLink in Flower's config.toml

APP = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "edgeloop-rounds"
version = "1.0.0"
description = "Rounds of FedAvg over a trainable .tflite"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "edgeloop"

[tool.flwr.app.components]
serverapp = "edgeloop.federated.rounds.server_app:app"
clientapp = "edgeloop.federated.device.client_app:app"

[tool.flwr.app.config]
work = {work}
"""


def write_app(work: Path) -> Path:
    """The app of a run; its ServerApp finds everything else in `work`."""
    app = work / "app"
    app.mkdir()
    (app / "pyproject.toml").write_text(APP.format(work=toml_text(str(work))))
    return app


def write_connection(home: Path, port: int) -> None:
    """Flower's own config.toml in the FLWR_HOME of its command line: where the SuperLink is."""
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "{CONNECTION}"\n\n'
        f'[superlink.{CONNECTION}]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
    )


def toml_text(text: str) -> str:
    """A TOML string without an inner quote: Flower's --node-config ends a value at the next one, escaped or not."""
    inner = json.dumps(text, ensure_ascii=False)[1:-1].replace('\\"', "\\u0022")
    return f'"{inner}"'
