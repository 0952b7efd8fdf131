"""`python -m loadstone` is the `loadstone` command."""

import sys

from loadstone.cli import main

if __name__ == "__main__":
    sys.exit(main())
