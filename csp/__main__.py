"""`python -m csp`: the command `csp`, where its script is not on the path."""

import sys

from csp.cli import main

if __name__ == "__main__":
    sys.exit(main())
