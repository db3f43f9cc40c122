"""Ingest a catalog's rasters and labels into the store.

On this machine, or on a cluster:

    python jobs/ingest.py config.yaml
    ray job submit --working-dir . -- python jobs/ingest.py config.yaml --set workspace=/shared/work
"""

import sys

from cdpipe.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["ingest", *sys.argv[1:]]))
