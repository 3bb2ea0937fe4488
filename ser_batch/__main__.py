"""``python -m ser_batch`` is ``ser-batch``."""

from ser_batch.cli.commands import main

if __name__ == "__main__":
    main()
