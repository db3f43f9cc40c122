"""Score a run against its labels and draw every pair.

On this machine, or on a cluster:

    python jobs/evaluate.py config.yaml
    ray job submit --working-dir . -- python jobs/evaluate.py config.yaml --set workspace=/shared/work
"""

import sys

from cdpipe.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
