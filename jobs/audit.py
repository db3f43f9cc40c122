"""Audit a run without labels, by running its models on a few patches of every pair again.

On this machine, or on a cluster:

    python jobs/audit.py config.yaml
    ray job submit --working-dir . -- python jobs/audit.py config.yaml --set workspace=/shared/work
"""

import sys

from cdpipe.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["audit", *sys.argv[1:]]))
