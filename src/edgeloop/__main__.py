"""`python -m edgeloop` is `edgeloop`."""

from edgeloop.cli import main

if __name__ == "__main__":
    main()
