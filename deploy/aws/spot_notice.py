"""Tells Ray that this spot machine is about to be taken away; runs on every worker of cluster.yaml.

AWS announces it two minutes ahead, in the machine's own metadata and nowhere else. Ray then starts nothing new here,
and training makes a checkpoint. https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
"""

import argparse
import datetime
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import ray

METADATA = "http://169.254.169.254"
ASK_EVERY = 5.0  # seconds, as AWS recommends
NEEDED = 10.0  # seconds that are left between the deadline that Ray is told and the end


def read_notice(metadata: str) -> float | None:
    """Seconds until this machine is taken away; None while there is no notice, or nobody to ask."""
    try:
        asked = urllib.request.Request(  # noqa: S310 (the address is ours)
            f"{metadata}/latest/api/token", method="PUT", headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"}
        )
        with urllib.request.urlopen(asked, timeout=5) as answer:  # noqa: S310
            token = answer.read().decode()
        asked = urllib.request.Request(  # noqa: S310
            f"{metadata}/latest/meta-data/spot/instance-action", headers={"X-aws-ec2-metadata-token": token}
        )
        with urllib.request.urlopen(asked, timeout=5) as answer:  # noqa: S310
            notice = json.load(answer)
    except (urllib.error.URLError, TimeoutError, ValueError):  # 404: no notice
        return None
    end = datetime.datetime.fromisoformat(notice["time"])
    return (end - datetime.datetime.now(datetime.UTC)).total_seconds()


def drain(address: str, seconds: float) -> None:
    """Tell Ray that this node goes in so many seconds."""
    ray.init(address=address, log_to_driver=False)
    node = ray.get_runtime_context().get_node_id()
    ray.shutdown()
    reason = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot reclaim"]
    deadline = ["--deadline-remaining-seconds", str(max(1, int(seconds)))]
    command = [str(Path(sys.executable).with_name("ray")), "drain-node", "--address", address, "--node-id", node]
    subprocess.run([*command, *reason, *deadline], check=True)  # noqa: S603 (all of it is ours)


def main() -> None:
    """Wait for the notice, pass it on, and end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address", help="of the cluster, as 10.0.0.5:6379")
    parser.add_argument("--metadata", default=METADATA, help="where to ask (default: %(default)s)")
    options = parser.parse_args()
    while (left := read_notice(options.metadata)) is None:
        time.sleep(ASK_EVERY)
    drain(options.address, left - NEEDED)


if __name__ == "__main__":
    main()
