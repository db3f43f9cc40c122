#!/bin/bash
# One run on Slurm, on nodes that it holds for as long as it takes: sbatch deploy/slurm.sh north-2025.yaml
# Further arguments are those of `cdpipe pipeline`, such as --set resources.gpus=0.
#
# Before: install cdpipe into .venv of the folder that sbatch is called from, on a file system that all nodes see under
# the same path, as are scenes, catalog, configuration and workspace. `.venv/bin/ray get-auth-token --generate` writes
# ~/.ray/auth_token, without which nobody joins; ~ must be shared, too.
#
# Two minutes before the time is up Slurm sends SIGTERM. It is passed on to the run, which makes a checkpoint and ends;
# the job is then queued again, and goes on from there.
#SBATCH --job-name=cdpipe
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=1
#SBATCH --time=12:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

source .venv/bin/activate
export RAY_AUTH_MODE="${RAY_AUTH_MODE:-token}" RAY_USAGE_STATS_ENABLED=0 RAY_task_oom_retries=3
nodes=$SLURM_JOB_NUM_NODES
# several jobs may share a node, each with a Ray of its own; workers' own ports are those from 10002 to 19999
port=$((20000 + SLURM_JOB_ID % 10000 * 3))
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
one=(srun --nodes=1 --ntasks=1 --nodelist="$first")
address=$("${one[@]}" python -c 'import ray; print(ray.util.get_node_ip_address())'):$port
export RAY_ADDRESS=$address

size=(--num-cpus="$SLURM_CPUS_PER_TASK")
"${one[@]}" --overlap ray start --head --block --node-ip-address="${address%:*}" --port="$port" "${size[@]}" \
    --ray-client-server-port=$((port + 1)) --dashboard-port=$((port + 2)) > "ray-$SLURM_JOB_ID.log" 2>&1 &
daemons=($!)
until ray health-check --address "$address" > /dev/null 2>&1; do
    kill -0 "${daemons[0]}" || { cat "ray-$SLURM_JOB_ID.log"; exit 1; }
    sleep 1
done
if [ "$nodes" -gt 1 ]; then
    srun --nodes=$((nodes - 1)) --ntasks=$((nodes - 1)) --exclude="$first" --overlap \
        ray start --block --address="$address" "${size[@]}" >> "ray-$SLURM_JOB_ID.log" 2>&1 &
    daemons+=($!)
fi
trap 'kill "${daemons[@]}" 2> /dev/null; wait "${daemons[@]}" 2> /dev/null || true' EXIT

# a run uses what is there: wait for all, five minutes at most, then go on with those that came
python - "$nodes" << 'END'
import sys
import time

import ray

ray.init(log_to_driver=False)
deadline = time.monotonic() + 300
while sum(node["Alive"] for node in ray.nodes()) < int(sys.argv[1]) and time.monotonic() < deadline:
    time.sleep(1)
print(f"{sum(node['Alive'] for node in ray.nodes())} of {sys.argv[1]} node(s)", flush=True)
END

stopped=
python jobs/pipeline.py "$@" &
run=$!
trap 'stopped=1; kill -TERM "$run"' TERM
code=0
wait "$run" || code=$?
if [ -n "$stopped" ]; then
    wait "$run" || code=$? # the first wait ended with the signal
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
