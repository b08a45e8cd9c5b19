"""Files with a few changes, and children of limited memory and time that open them."""

from __future__ import annotations

import json
import os
import random
import sys
import time
from pathlib import Path

from edgeloop.processes.children import owned

WORDS = [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x01\0\0\x80", b"\0\0\xc0\x7f", b"\x10\0\0\0"]
RESIDENT_LIMIT_BYTES = 2 << 30
LOADER_LIMIT_S = 120


def mutated(data, seed):
    """`data` with one to four changes: flipped bits, other bytes, sizes that matter, a cut, a part twice or gone."""
    rng, out = random.Random(seed), bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(out)) if out else 0
        change = rng.randrange(7)
        if change == 0 and out:
            out[at] ^= 1 << rng.randrange(8)
        elif change == 1 and out:
            out[at] = rng.randrange(256)
        elif change == 2:
            out[at : at + 4] = rng.choice(WORDS)
        elif change == 3:
            out[at - at % 4 : at - at % 4 + 4] = rng.choice(WORDS)
        elif change == 4 and rng.random() < 0.3:
            del out[at:]
        elif change == 5:
            del out[at : at + rng.randint(1, 16)]
        elif change == 6:
            out[at:at] = out[at : at + rng.randint(1, 64)]
    return bytes(out)


# Opens and calls each file that it is told of, one line of JSON a file; whoever kills it knows which one it was.
CHILD = """
import json, math, sys
import numpy as np
from edgeloop.convert.sources.source import open_source
from edgeloop.errors import EdgeloopError
for path in sys.stdin:
    try:
        source = open_source(path.strip())
        shapes = {t.name: ([d or 1 for d in t.shape], t.dtype) for t in source.inputs}
        if all(math.prod(shape) < 1 << 20 for shape, _ in shapes.values()):
            source.call({name: np.zeros(*shape) for name, shape in shapes.items()})
        answer = ["opened", list(shapes)]
    except EdgeloopError as e:
        answer = ["refused", str(e)]
    except BaseException as e:
        answer = ["bug", f"{type(e).__name__}: {e}"]
    print(json.dumps(answer), file=sys.__stdout__, flush=True)
"""


def resident_bytes(pid):
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0  # it has ended


def opened(paths, folder, limit_bytes=RESIDENT_LIMIT_BYTES):
    """What open_source did with each file, in children of limited memory and time: a new one after each that died."""
    answers, left, program = [], list(paths), folder / "open.py"
    program.write_text(CHILD)
    while left:
        (folder / "paths").write_text("".join(f"{path}\n" for path in left))
        with (folder / "paths").open() as todo, (folder / "out").open("w") as out, (folder / "err").open("w") as err:
            env = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
            with owned([sys.executable, program], stdin=todo, stdout=out, stderr=err, env=env, cwd=folder) as child:
                ended = watch(child, folder / "out", limit_bytes)
        lines = [json.loads(line) for line in (folder / "out").read_text().splitlines() if line.startswith("[")]
        answers += lines
        if len(lines) < len(left):
            answers.append(["killed", ended])
        left = left[len(lines) + 1 :]
    return answers


def watch(child, out, limit_bytes):
    """Wait for the end, or end it: memory over the limit, or no new answer in time. Says how it ended."""
    size, since = 0, time.monotonic()
    while child.poll() is None:
        if out.stat().st_size != size:
            size, since = out.stat().st_size, time.monotonic()
        if resident_bytes(child.pid) > limit_bytes:
            return "memory"
        if time.monotonic() - since > LOADER_LIMIT_S:
            return "time"
        time.sleep(0.05)
    return f"ended with {child.returncode}"
