"""The app that `flwr run` sends out. It holds no code: its two components are modules of edgeloop itself."""

from __future__ import annotations

from pathlib import Path

from edgeloop.toml_value import toml_value

CONNECTION = "edgeloop"  # the name of our SuperLink in Flower's config.toml

HEAD = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "{name}"
version = "1.0.0"
description = "Federated averaging of a trainable .tflite"
license = "Apache-2.0"
dependencies = [{dependencies}]
"""  # of every app's pyproject.toml

APP = """
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
    app.mkdir(exist_ok=True)  # an earlier `flwr run` may have failed
    head = HEAD.format(name="edgeloop-rounds", dependencies="")
    (app / "pyproject.toml").write_text(head + APP.format(work=toml_value(str(work))))
    return app


def write_connection(home: Path, port: int) -> None:
    """Flower's own config.toml in the FLWR_HOME of its command line: where the SuperLink is."""
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "{CONNECTION}"\n\n'
        f'[superlink.{CONNECTION}]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
    )
