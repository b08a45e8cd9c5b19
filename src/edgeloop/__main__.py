"""`edgeloop` and `python -m edgeloop`: Ctrl-C and SIGTERM end it with one line from the first moment on.

The command line takes a part of a second to load, and it is the command line that handles signals. Until then nothing
has been started, so that the process may end on the spot. `_signal` is the built-in half of `signal`, which takes
milliseconds to load: in them Python would answer Ctrl-C with a traceback.
"""

import _signal
import os
import sys

INTERRUPTED = 130  # as in errors.py, which is not loaded yet
SIGNALS = (_signal.SIGINT, _signal.SIGTERM)
LINE = b"edgeloop: interrupted; every process that was started has ended.\n"
DOCUMENT = (
    b'{"error": {"type": "Interruption", "exit_code": 130, '
    b'"found": "interrupted; every process that was started has ended.", "advice": ""}}\n'
)
_words = 2  # standard error: the command line leads 2 elsewhere before it handles signals, and until after that


def main() -> None:
    """Entry point of the `edgeloop` program. Ends the process."""
    global _words
    _words = os.dup(2)
    for number in SIGNALS:
        _signal.signal(number, _end)
    try:
        from edgeloop.cli import main as command_line

        command_line()
    except SystemExit as e:
        if e.code == INTERRUPTED:
            _exit_interrupted()
        raise
    finally:  # what is left is to exit, and all that was started has ended: no signal needs an answer
        for number in SIGNALS:
            _signal.signal(number, _signal.SIG_DFL)


def _exit_interrupted() -> None:
    """End with that exit code. By itself Python ends with a SIGINT of its own where a KeyboardInterrupt, though it was
    caught, has left the text of an `exec`: of a dataclass that was being made, for one."""
    import atexit

    atexit._run_exitfuncs()
    os._exit(INTERRUPTED)


def _end(number: int, frame: object) -> None:
    os.write(_words, LINE)
    if "--json" in sys.argv:
        os.write(1, DOCUMENT)
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
