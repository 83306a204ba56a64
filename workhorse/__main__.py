"""`python -m workhorse COMMAND ...`."""

import sys

from workhorse.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
