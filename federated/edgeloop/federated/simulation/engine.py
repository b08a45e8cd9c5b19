"""The process of a simulation: Flower's simulation engine on Ray, with the server of a run and its devices.

    python -m edgeloop.federated.simulation.engine WORK

`run_simulation` is deprecated in Flower 1.42 in favour of `flwr run` with a SuperLink of its own; the extra pins 1.42.
Ray's processes listen on all addresses of this machine; who speaks with them needs the token that process.py made.
With `ray-address` the devices are played by the processes of a Ray cluster, which see the work folder at the same path.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation

from edgeloop import settings
from edgeloop.errors import one_line
from edgeloop.federated.rounds.server_app import serve_job
from edgeloop.federated.simulation.client_app import simulated_app
from edgeloop.federated.simulation.options import SimulationOptions
from edgeloop.federated.simulation.population import Population, examples_of
from edgeloop.federated.simulation.process import JOB, SAMPLES
from edgeloop.federated.simulation.simulated_grid import SimulatedGrid

RAY = "ray"  # begins the names of the folders of Ray's own files, in a work folder
STARTS = 3


def main(work: Path) -> None:
    """Run the job in the work folder to its end."""
    given = json.loads((work / JOB).read_bytes())
    options, workers = settings.build(SimulationOptions, given["options"]), int(given["workers"])
    population = Population(options, examples_of(work / SAMPLES))
    server = ServerApp()

    @server.main()
    def serve(grid: Grid, context: Context) -> None:
        serve_job(SimulatedGrid(grid, population, float(given["deadline-s"]), workers), work)

    try:
        if options.ray_address is None:
            _start_ray(work / RAY, workers)
        else:
            workers = _join_cluster(options.ray_address)
        run_simulation(
            server,
            simulated_app(str(work), str(given["state"])),
            options.nodes,
            backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
        )
    except BaseException as e:
        traceback.print_exc()
        cause: BaseException = e
        while cause.__cause__ is not None:
            cause = cause.__cause__
        print(one_line(f"{type(cause).__name__}: {cause}"), file=sys.stderr, flush=True)  # what the parent shows
        os._exit(1)  # the server's thread would wait for an engine that has ended


def _start_ray(folder: Path, workers: int) -> None:
    """Flower takes a Ray that runs. Ray gives itself half a minute, which a busy machine may not keep."""
    import ray

    for attempt in range(1, STARTS + 1):
        try:
            ray.init(address="local", num_cpus=workers, include_dashboard=False, _temp_dir=f"{folder}{attempt}")
            return
        except Exception as e:  # Ray raises this very class where a process of its own is late
            ray.shutdown()
            if attempt == STARTS:
                raise
            print(f"Ray did not start ({e}); trying again", file=sys.stderr, flush=True)


def _join_cluster(address: str) -> int:
    """CPUs of a Ray cluster; its processes find no TensorFlow, as those of this machine."""
    import ray

    ray.init(address=address, runtime_env={"env_vars": {"PYTHONPATH": os.environ["PYTHONPATH"]}})
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return int(resources["CPU"])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
