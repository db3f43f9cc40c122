"""Run the models over all pairs and publish change masks.

On this machine, or on a cluster:

    python jobs/predict.py config.yaml
    ray job submit --working-dir . -- python jobs/predict.py config.yaml --set workspace=/shared/work
"""

import sys

from cdpipe.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["predict", *sys.argv[1:]]))
