"""Slips in Slurm's scripts: lint names each by its code and line, and nothing in the files as such."""

import pytest

SLIPS = [
    ("slurm", "cpus-per-task=26", "cpus-per-task=4", "cannot-fit"),
    ("slurm", "gpus-per-node=4", "partition=gpu", "cannot-fit"),
    ("slurm", "ntasks-per-node=1", "ntasks-per-node=4", "tasks-per-node"),
    ("slurm", "--ntasks-per-node=1", "-n 8", "tasks-per-node"),
    ("slurm", "--time=", "--timee=", "unknown-key time-unstated"),
    *(("slurm", "time=24:00:00", f"time={limit}", "wrong-value") for limit in ("24", "24:00", "24h", "1d")),
    *(("slurm", "#SBATCH --nodes=2", f"{sign} --nodes=1", "option-ignored") for sign in ("# SBATCH", "#sbatch")),
    *(("slurm", "--nodes=2", f"--nodes{value}", "wrong-value") for value in ("=two", "=0", " = 2")),
    ("slurm", "--nodes=2", "-nodes=2", "unknown-key"),
    ("slurm", "cpus-per-task=26", "cpus-per-task=26\n#SBATCH --mem=128", "memory-small"),
    ("slurm", "cpus-per-task=26", "cpus-per-task=26\n#SBATCH --mem-per-cpu=4", "memory-small"),
    ("slurm", "gpus-per-node=4", "gres=gpus:4", "cannot-fit"),
    ("slurm", "^#!/bin/bash\n", "", "wrong-value"),
    ("slurm-array", "^#SBATCH --array=0-1", "#SBATCH --array=0..1", "wrong-value"),
    ("slurm", "#SBATCH --requeue\n", "", "not-restarted"),
    ("slurm", "signal=B:USR1@300", "signal=USR1@300", "not-restarted"),
    ("slurm", "signal=B:USR1@300", "signal=B:USR2@300", "not-restarted"),
    ("slurm", "signal=B:USR1@300", "signal=B:USR1@10", "grace-period-short"),
    ("slurm", "    scontrol requeue", "    true", "not-restarted"),
    ("slurm", "^set -euo pipefail", "set -euo pipefail\n#SBATCH --mem=64G", "option-ignored"),
    ("slurm", "^export RAY_AUTH_MODE=token.*", "", "no-token"),
    ("slurm", "--dashboard-host=0.0.0.0 ", "", "dashboard-hidden"),
    ("slurm", '^: "\\$\\{TRANSKD_STORE.*', "", "store-not-shared"),
    ("slurm", "--cluster slurm", "", "entrypoint-local"),
    ("slurm", "--cluster slurm", "--cluster kuberay", "spec-differs"),
    ("slurm-array", "cpus-per-task=26", "cpus-per-task=4", "cannot-fit"),
    ("slurm-array", "    scontrol requeue", "    true", "not-restarted"),
    ("slurm-array", "--cluster slurm-array", "--cluster slurm", "spec-differs"),
]


@pytest.mark.parametrize(("name", "old", "new", "expected"), SLIPS)
def test_a_slip_is_named_by_its_codes_with_the_line_and_a_remedy(check_slip, name, old, new, expected):
    check_slip(name, old, new, expected)


RIGHT = [
    ("slurm", "time=24:00:00", "time=1-00"),
    ("slurm", "time=24:00:00", "time=UNLIMITED"),
    ("slurm", "--requeue", "--requeue\n##SBATCH --qos=high\n# SBATCH lines come first\n# sbatch --array=0-1 me"),
    ("slurm", "cpus-per-task=26", "cpus-per-task=26\n#SBATCH --mem=0"),
    ("slurm", "cpus-per-task=26", "cpus-per-task=26\n#SBATCH --mem-per-cpu=4000"),
    ("slurm", "--gpus-per-node=4", "--gres=gpu:a100:4,tmp:200G"),
    ("slurm", "--gpus-per-node=4", "--gres=gpu:4(S:0-1)"),
    ("slurm", "--gpus-per-node=4", "--gres=gpu"),
    ("slurm-array", "^#SBATCH --array=0-1", "#SBATCH --array=0,2-8:2%1"),
    ("slurm", "--nodes=2", "-N 2-4"),
    ("slurm", "--gpus-per-node=4", "--gres=gpu:a100:4"),
    ("slurm", "--gpus-per-node=4", "-G8"),
    ("slurm", "signal=B:USR1@300", "signal=B:SIGUSR1@600"),
]


@pytest.mark.parametrize(("name", "old", "new"), RIGHT)
def test_what_is_right_is_not_named(check_right, name, old, new):
    check_right(name, old, new)
