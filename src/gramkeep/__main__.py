"""`python -m gramkeep` does what `gramkeep` does."""

import sys

from gramkeep.cli import main

if __name__ == "__main__":
    sys.exit(main())
