"""The process that holds TensorFlow for `keras_result`: a Keras model in, the same with other weights out."""

from __future__ import annotations

import os
from typing import Any

from edgeloop.cloud.train.model.models import open_keras
from edgeloop.cloud.train.model.warm_start import warm_start
from edgeloop.cloud.train.run.run_folder import save_keras
from edgeloop.federated.rounds.keras_result import KerasJob
from edgeloop.processes.job_child import Events, serve


def write_with_weights(job: KerasJob, events: Events) -> dict[str, Any]:
    model = open_keras(job.source)
    events.read()
    told = warm_start(model, job.weights)
    save_keras(model, job.target)
    return {"told": told}


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    serve(write_with_weights)
