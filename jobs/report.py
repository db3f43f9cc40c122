"""Write the report of a run, pages for a browser.

On this machine, or on a cluster:

    python jobs/report.py config.yaml
    ray job submit --working-dir . -- python jobs/report.py config.yaml --set workspace=s3://bucket/work
"""

import sys

from cdpipe.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["report", *sys.argv[1:]]))
