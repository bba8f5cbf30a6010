#!/bin/bash
# Slurm launcher: an array of studies. Each task runs one study on one node, with a Ray of its own, and all share a store.
#
#   start:      TRANSKD_STORE=/shared/store sbatch --array=0-1 cluster/slurm-array.sh STUDY STUDY   where `transkd` is on
#               the PATH; as many indices as studies, and %1 behind them for one at a time
#   watch:      squeue --me; tail -f slurm-JOBID_INDEX.out; transkd status STUDY --store /shared/store
#   tear down:  scancel JOBID, or JOBID_INDEX for one study; they go on where they were when the command is given again
#   an hour:    GPUs of a node for each task that runs, from your account: sacct -j JOBID --format=Elapsed,AllocTRES
#
# A teacher or another run that several studies need is trained once. The time limit, the loss of a node and a killed
# driver put the task back into the queue, and its study goes on. A study of several nodes is for cluster/slurm.sh.
#SBATCH --job-name=transkd
#SBATCH --array=0-1
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=26
#SBATCH --gpus-per-node=4
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@300
set -euo pipefail

: "${1:?name the studies: sbatch --array=0-1 cluster/slurm-array.sh STUDY STUDY}"
: "${TRANSKD_STORE:?set it to a folder that every node mounts, or a bucket}"
: "${SLURM_ARRAY_TASK_ID:?give the studies indices: sbatch --array=0-$(($# - 1))}"
studies=("$@")
study=${studies[SLURM_ARRAY_TASK_ID]:?"is the study of index $SLURM_ARRAY_TASK_ID, and there are $# from 0: correct --array"}

# Slurm sends USR1 five minutes before the time limit. It is not TERM, which scancel sends: that task must not come back.
limit=
trap 'limit=reached; kill -TERM "$driver"' USR1
trap 'kill -TERM "$driver"' TERM

transkd run "$study" --cluster slurm-array &
driver=$!
code=0
wait "$driver" || code=$?
while kill -0 "$driver" 2>/dev/null; do # a signal ended `wait`, and the driver writes its report
    code=0
    wait "$driver" || code=$?
done

# 0 to 3: the study has ended, or a person must act (docs/clusters.md). 130: stopped. More: killed, 20 times at most.
if [[ $limit ]] && ((code > 3)) || ((code > 130 && ${SLURM_RESTART_COUNT:-0} < 20)); then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
