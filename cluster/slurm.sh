#!/bin/bash
# Slurm launcher: joins the nodes of a job to one Ray and runs a study on them.
#
#   ray get-auth-token --generate                                          once; home must be shared
#   start:      TRANSKD_STORE=/shared/store sbatch cluster/slurm.sh STUDY [OPTIONS]   where `transkd` is on the PATH
#   watch:      squeue --me; tail -f slurm-JOBID.out; transkd status STUDY --store /shared/store
#   tear down:  scancel JOBID       the runs go on where they were when the same command is given again
#   an hour:    nodes x GPUs hours of your account: sacct -j JOBID --format=Elapsed,AllocTRES; a site has its own prices
#
# The time limit, the loss of a node and a killed driver put the job back into the queue, and the study goes on. Options
# are those of `transkd run`.
#SBATCH --job-name=transkd
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=26
#SBATCH --gpus-per-node=4
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@300
set -euo pipefail

: "${1:?name a study: sbatch cluster/slurm.sh STUDY}"
: "${TRANSKD_STORE:?set it to a folder that every node mounts, or a bucket}"

export RAY_AUTH_MODE=token # other users of a node could else run code as you
head=$SLURMD_NODENAME
port=$((20000 + 3 * (SLURM_JOB_ID % 3000))) # two jobs may share a node
export RAY_ADDRESS=$head:$port
resources=(--num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="${SLURM_GPUS_ON_NODE:-0}")

# Slurm ends these steps with the script: no `ray stop`, which would end another job's Ray on the node.
srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" \
    ray start --head --block --dashboard-host=0.0.0.0 --port="$port" --dashboard-port=$((port + 1)) \
    --ray-client-server-port=$((port + 2)) "${resources[@]}" &
if ((SLURM_JOB_NUM_NODES > 1)); then
    srun --overlap --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks=$((SLURM_JOB_NUM_NODES - 1)) --exclude="$head" \
        bash -c 'until ray start --address="$RAY_ADDRESS" --block "$@"; do sleep 5; done' _ "${resources[@]}" &
fi

# How many runs go at once is counted when the study starts: all nodes must be there.
timeout 600 bash -c 'until ray status 2>/dev/null | grep -c " node_" | grep -qx "$0"; do sleep 2; done' "$SLURM_JOB_NUM_NODES"

# Slurm sends USR1 five minutes before the time limit. It is not TERM, which scancel sends: that job must not come back.
limit=
trap 'limit=reached; kill -TERM "$driver"' USR1
trap 'kill -TERM "$driver"' TERM

transkd run --cluster slurm "$@" &
driver=$!
code=0
wait "$driver" || code=$?
while kill -0 "$driver" 2>/dev/null; do # a signal ended `wait`, and the driver writes its report
    code=0
    wait "$driver" || code=$?
done

# 0 to 3: the study has ended, or a person must act (docs/clusters.md). 130: stopped. 4: Ray was lost. More: killed.
# The last two are tried again, 20 times at most.
if [[ $limit ]] && ((code > 3)) || (((code == 4 || code > 130) && ${SLURM_RESTART_COUNT:-0} < 20)); then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
