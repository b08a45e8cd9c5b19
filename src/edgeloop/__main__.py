"""`edgeloop` and `python -m edgeloop`: Ctrl-C and SIGTERM end it with one line from the first moment on.

The command line takes a part of a second to load, and it is the command line that handles signals. Until then nothing
has been started, so that the process may end on the spot. `_signal` is the built-in half of `signal`, which takes
milliseconds to load: in them Python would answer Ctrl-C with a traceback.
"""

import _signal
import os
import sys

SIGNALS = (_signal.SIGINT, _signal.SIGTERM)
LINE = b"edgeloop: interrupted; every process that was started has ended.\n"
DOCUMENT = (
    b'{"error": {"type": "Interruption", "exit_code": 130, '
    b'"found": "interrupted; every process that was started has ended.", "advice": ""}}\n'
)


def main() -> None:
    """Entry point of the `edgeloop` program. Ends the process."""
    for number in SIGNALS:
        _signal.signal(number, _end)
    try:
        from edgeloop.cli import main as command_line

        command_line()
    finally:  # what is left is to exit, and all that was started has ended: no signal needs an answer
        for number in SIGNALS:
            _signal.signal(number, _signal.SIG_DFL)


def _end(number: int, frame: object) -> None:
    os.write(2, LINE)
    if "--json" in sys.argv:
        os.write(1, DOCUMENT)
    os._exit(130)


if __name__ == "__main__":
    main()
