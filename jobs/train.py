"""Train every configured model.

On this machine, or on a cluster:

    python jobs/train.py config.yaml
    ray job submit --working-dir . -- python jobs/train.py config.yaml --set workspace=/shared/work
"""

import sys

from cdpipe.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
