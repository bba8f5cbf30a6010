#!/usr/bin/env bash
# Train a study with `python -m trainer` alone: its teacher, then of one seed after another all arms, in one cohort.
#
#   benchmarks/flagship.sh STUDY OUT SECONDS [options of `python -m trainer fit`, for example --data-root DIR --compile]
#
# For a machine that is lent for minutes and has no Ray: torch, timm, pyarrow, pydantic, typer and pyyaml are enough. A
# seed is begun only while there is time for it, so that what is there at the end is paired. Run again, it goes on. A
# teacher from elsewhere: put its run's folder at OUT/runs/teacher. Then, where transkd is:
#
#   transkd import OUT/runs && transkd report STUDY
set -euo pipefail
if [ $# -lt 3 ] || [[ ! $3 =~ ^[0-9]+$ ]]; then
  echo "usage: $0 STUDY OUT SECONDS [options of fit]; SECONDS is a whole number but got '${3-}'" >&2
  exit 2
fi
root=$(cd "$(dirname "$0")/.." && pwd)
study=$1 out=$2 seconds=$3
shift 3
PYTHON=${PYTHON:-python}
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}
began=$SECONDS longest=0 failed=0

# written at each start: of a study that has changed, `fit` refuses the folders of the runs that it had before
rm -rf "$out/configs"
"$PYTHON" "$root/benchmarks/flagship_configs.py" "$study" "$out/configs"

teacher=()
if [ -f "$out/configs/teacher.yaml" ]; then
  "$PYTHON" -m trainer fit "$out/configs/teacher.yaml" --out "$out/runs/teacher" "$@"
  teacher=(--teacher "$out/runs/teacher/last.pt")
  echo "teacher: $((SECONDS - began)) s"
fi
for seed in $(ls "$out/configs" | grep -o '^seed[0-9]*$' | sort -V); do
  if [ $((SECONDS - began + longest)) -gt "$seconds" ]; then
    echo "no time for $seed: $((SECONDS - began)) s of $seconds have passed, and a seed takes $longest s"
    break
  fi
  started=$SECONDS
  "$PYTHON" -m trainer fit "$out/configs/$seed"/*.yaml --out "$out/runs/$seed" "${teacher[@]}" "$@" || failed=1  # the other arms have gone on
  took=$((SECONDS - started))
  longest=$((took > longest ? took : longest))
  echo "$seed: $took s"
done
exit $failed
