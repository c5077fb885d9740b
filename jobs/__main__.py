"""``python -m jobs`` is the ``legrad`` command."""

from jobs.cli import main

if __name__ == "__main__":
    main()
