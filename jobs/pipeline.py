"""Ingest, train, predict and evaluate in one job.

On this machine, or on a cluster:

    python jobs/pipeline.py config.yaml
    ray job submit --working-dir . -- python jobs/pipeline.py config.yaml --set workspace=/shared/work
"""

import sys

from cdpipe.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["pipeline", *sys.argv[1:]]))
