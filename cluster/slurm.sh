#!/bin/bash
# Slurm launcher: joins the nodes of a job to one Ray and runs a study on them.
#
#   ray get-auth-token --generate                                          once; home must be shared
#   TRANSKD_STORE=/shared/store sbatch cluster/slurm.sh STUDY [OPTIONS]    from an environment that has transkd
#
# Ended by the time limit? Submit it again: the study goes on. Options are those of `transkd run`.
#SBATCH --job-name=transkd
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=26
#SBATCH --gpus-per-node=4
#SBATCH --time=24:00:00
set -euo pipefail

: "${1:?name a study: sbatch cluster/slurm.sh STUDY}"
: "${TRANSKD_STORE:?set it to a folder that every node mounts}"

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

transkd run --cluster slurm "$@"
