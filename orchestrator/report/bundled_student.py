"""The student of one arm in a bundle: a checkpoint without distillers and optimiser, for `predict` and `export`."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ablations.statistics.outcome import scores_of
from orchestrator.state.study_state import StudyRun, StudyState
from orchestrator.store.folder import Store
from trainer.config import UserError, unknown
from trainer.files.run_folder import LAST

FOLDER = "student"


def median_run(state: StudyState, arm: str) -> StudyRun:
    """The finished run of an arm whose metric is the median of its seeds, the lower of two: the best seed would look
    better than the arm is. Raises UserError where the study has no such arm, or it has no finished run."""
    runs = {run.plan.seed: run for run in state.runs if run.plan.role == "arm" and run.plan.arm == arm}
    if not runs:
        arms = sorted({run.plan.arm for run in state.runs if run.plan.role == "arm"})
        raise UserError(f"--student: {unknown(f'arm of {state.study.name}', arm, arms)}")
    scores = scores_of(state.study, [run.plan for run in runs.values()], state.outcomes)
    finished = sorted(scores, key=lambda seed: (scores[seed], seed))
    if not finished:
        raise UserError(f"--student {arm} has no finished run in this store; run the study first")
    return runs[finished[(len(finished) - 1) // 2]]


def student_files(state: StudyState, store: Store, arm: str) -> dict[str, bytes]:
    """The files of an arm's median run: last.pt with the student alone, config.yaml and result.json, by their names in
    the bundle. Raises UserError as `median_run` does, and where the run's checkpoint is not in this store."""
    from trainer.deploy.mlflow_model import student_folder

    run_id = median_run(state, arm).run_id
    store.fetch_run(run_id)
    run = store.run_dir(run_id)
    if not (run / LAST).is_file():
        raise UserError(f"--student {arm}: {run / LAST} is not there; give the store that trained it")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / FOLDER
        student_folder(run, LAST, out)
        files = {f"{FOLDER}/{path.name}": path.read_bytes() for path in sorted(out.iterdir())}
    return files | {f"{FOLDER}/result.json": (run / "result.json").read_bytes()}
