"""``python -m cdpipe``: the command line, also where no script of that name is on PATH."""

import sys

from cdpipe.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
