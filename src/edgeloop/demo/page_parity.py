"""The last release in the browser's runtime against LiteRT in Python, on the same images."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeloop.browser.runners import LITERTJS
from edgeloop.bundle import Bundle
from edgeloop.convert.sources.source import INFER
from edgeloop.demo.data import Dataset
from edgeloop.demo.state import DemoRun
from edgeloop.errors import ParityError
from edgeloop.runtime.runners import AGENT_RUNNERS
from edgeloop.runtime_table import LITERT

IMAGES = 64
# Same arithmetic in WebAssembly: float32 may sum in another order (the floor of every float32 variant); int8 may round
# a tie the other way, which moves one output by one step of its scale (1/256 for a softmax), and two when it happens
# twice on the way.
MAX_ABS = {"float32": 1e-5, "int8": 2 / 256}


def compare_page(run: DemoRun, bundle: Bundle, test: Dataset) -> dict[str, Any]:
    """float32 and int8 in LiteRT.js, headless, on the first test images.

    Raises:
        ParityError: The page answers differently.
    """
    name = bundle.manifest.signatures[INFER].inputs[0].name
    inputs = {name: test.x[:IMAGES]}
    worst = {}
    for done, (id, bound) in enumerate(MAX_ABS.items()):
        entry = bundle.variant(id).entry
        answers = []
        for runner in (AGENT_RUNNERS[LITERT.name], LITERTJS):
            with runner.open(bundle.path, entry) as session:
                answers.append(session.infer(inputs, INFER))
        python, page = answers
        worst[id] = max(float(np.max(np.abs(python[o] - page[o]))) for o in python)
        if not worst[id] <= bound:
            raise ParityError(
                f"{id} in LiteRT.js differs from LiteRT in Python by {worst[id]:.3g}, expected at most {bound:.3g}",
                advice="Do not serve release 2: the page would answer differently from the devices.",
            )
        run.progress("browser", done + 1, len(MAX_ABS))
    count = len(inputs[name])
    run.say(
        f"5 browser    LiteRT.js in Chromium agrees with Python on {count} images: "
        + ", ".join(f"{id} within {value:.1e}" for id, value in worst.items())
    )
    return {"engine": LITERTJS.name, "n": count, "max_abs": max(worst.values()), "variants": worst}
