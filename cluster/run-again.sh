#!/bin/bash
# Runs a study until it has ended, also where its driver dies: the store remembers what is done.
#
#   bash cluster/run-again.sh STUDY --cluster SPEC        in tmux, on the head; options are those of `transkd run`
#   systemd-run --user --unit=transkd bash cluster/run-again.sh STUDY --cluster SPEC        the same without a terminal
#
# A driver that a signal killed (137: out of memory) is started again, 20 times at most, and so is one that lost the head
# of Ray or a store in a bucket (4), also while no new head answers (2 after 4). One that ended with 1, as runs failed, is
# so 3 times at most, because a failed run may fail each time and costs GPUs. The others end it: 0 (done), 2 (a mistake to
# correct), 3 (no disk space is left) and 130 (stopped by a person).
set -uo pipefail

killed=0
failed=0
before=0
while true; do
    transkd run "$@" && exit 0
    code=$?
    if ((code == 1)); then
        ((failed += 1))
    elif ((code == 4 || code > 130)) || ((code == 2 && before == 4)); then
        ((killed += 1))
        ((code == 2)) && code=4
    else
        exit "$code"
    fi
    if ((failed > 3 || killed > 20)); then
        echo "run-again: not started again after $failed failures and $killed kills; the last exit code was $code" >&2
        exit "$code"
    fi
    before=$code
    echo "run-again: the driver ended with exit code $code and is started again" >&2
    sleep "${TRANSKD_AGAIN_AFTER_S:-60}"
done
