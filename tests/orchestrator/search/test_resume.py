"""What a launch makes of earlier trials: those that failed or waited go on, and a ranking never mixes two data sets."""

import pytest
import torch
from mlflow import MlflowClient

from ablations.study.plan import search_identity, trial_run
from ablations.study.schema import read
from ablations.study.variant_search import searches
from orchestrator.prepare import jobs
from orchestrator.runs_left import count_left
from orchestrator.search.resume import refuse_changed
from orchestrator.state.proposals import proposals
from orchestrator.state.study_state import StudyState
from orchestrator.store.ledger import Ledger
from orchestrator.tracking.mirror import Mirror
from orchestrator.verbs import plan as plan_verb
from trainer.config import RunIds, Sources, UserError, data_key, parse
from trainer.models import build_model
from trainer.training import sources


@pytest.fixture
def few(bench):
    """Twelve proposals of four configs."""
    return bench.study(f"{{trials: 12, sampler: random, seed: 3, {bench.CHOICES}}}")


def lockstep(bench, trials, batch):
    return bench.study(f"{{trials: {trials}, stop: asha, deterministic: true, batch: {batch}, {bench.RANGES}}}")


@pytest.mark.slow
def test_trials_that_ended_while_nobody_watched_reach_tracking(bench):
    study = bench.study(f"{{trials: 3, stop: asha, startup: 1, {bench.RANGES}}}")
    bench.run(study, trials=2, until=3)  # killed after the last epoch of the first, before anybody was told
    bench.run(study, trials=2)
    bench.run(study, trials=3, until=1)  # killed at a rung
    mirror = Mirror(study.name, bench.store)
    bench.start(study, mirror)
    assert mirror.close([], finished=True) == set()
    client = MlflowClient(tracking_uri=bench.store.mlflow_uri)
    experiment = client.get_experiment_by_name(f"transkd/{study.name}").experiment_id
    found = {run.data.tags.get("transkd.run_id"): run.data.tags for run in client.search_runs([experiment])}
    for run_id, trial in proposals(study, bench.ledger):
        assert found[run_id]["transkd.status"] == trial.state


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cause", "options", "again"),
    [
        ("bug", {}, True),
        ("user", {}, True),
        ("memory", {}, True),
        ("teacher", {}, True),
        ("nan", {}, False),
        ("nan", {"retry_failed": True}, True),
    ],
)
def test_the_next_launch_tries_failed_trials_again_once_a_run(bench, few, cause, options, again):
    bench.failing = [cause] * 4
    first = bench.start(few)
    assert len(first) == 4
    assert bench.states(few) == ["failed"] * 12, "within a launch a search ends"
    assert count_left(bench.launch(few, **options).state) == 1 + 12 * again, "the teacher, and the trials"
    assert sorted(bench.start(few, **options)) == sorted(first if again else [])
    assert bench.states(few) == ["finished" if again else "failed"] * 12
    assert bench.start(few) == []


@pytest.mark.slow
def test_what_fails_again_has_failed_for_all_proposals_of_its_config(bench, few):
    bench.failing = ["bug"] * 8
    assert len(bench.start(few)) == len(bench.start(few)) == 4
    assert bench.states(few) == ["failed"] * 12
    longer = few.model_copy(update={"search": few.search.model_copy(update={"trials": 4})})
    assert len(bench.start(longer)) == len({run_id for run_id, _ in proposals(few, bench.ledger)[:4]})
    assert count_left(bench.launch(longer).state) == 1, "what is beyond `trials` is nobody's"


@pytest.mark.slow
@pytest.mark.parametrize("failing", [7, 4])
def test_a_deterministic_search_whose_code_was_mended_equals_one_that_never_failed(bench, make_bench, failing):
    study, whole = lockstep(bench, 7, batch=3), make_bench()
    whole.start(study)
    bench.failing = ["bug"] * failing
    bench.run(study, trials=failing)
    assert bench.states(study).count("failed") == failing
    assert count_left(bench.launch(study).state) == 1 + 7
    bench.start(study)
    assert bench.trials(study) == whole.trials(study)
    assert bench.start(study) == []


@pytest.mark.slow
def test_a_failure_that_later_batches_were_proposed_after_stays(bench):
    study = lockstep(bench, 7, batch=3)
    bench.failing = ["bug"]
    bench.start(study)
    found = bench.trials(study)
    assert [state == "failed" for *_, state, _ in found] == [True] + [False] * 6
    assert bench.start(study) == []
    assert bench.trials(study) == found


def test_a_process_that_was_lost_ends_no_other_proposal_of_its_config(bench, few):
    bench.failing = ["lost"]
    trained = bench.start(few)
    assert trained.count(trained[0]) == 2
    assert bench.states(few) == ["finished"] * 12


@pytest.mark.slow
def test_trials_that_wait_at_a_rung_are_one_attempt_and_end_there_whoever_judges_them(bench, make_bench):
    study, whole = lockstep(bench, 4, batch=4), make_bench()
    whole.start(study)
    assert set(whole.states(study)) == {"finished", "stopped"}
    assert [run.attempts for run in whole.ledger.outcomes().values()] == [1] * 4
    bench.run(study, trials=2)  # killed while they wait
    bench.start(study)
    assert bench.trials(study) == whole.trials(study)
    ends = [{run_id: run.status for run_id, run in b.ledger.outcomes().items()} for b in (bench, whole)]
    assert ends[0] == ends[1]


@pytest.mark.slow
def test_a_search_whose_numerics_have_changed_is_refused_and_another_name_loses_nothing(bench, monkeypatch, tmp_path):
    words = f"{{trials: 3, stop: asha, {bench.RANGES}}}"
    study = bench.study(words)
    bench.run(study, trials=2)
    bench.run(study, trials=1, until=1)
    found = bench.trials(study)
    version = sources.NUMERICS_VERSION
    for module in (sources, jobs, plan_verb):
        monkeypatch.setattr(module, "NUMERICS_VERSION", version + 1)
    file = tmp_path / "study.yaml"
    file.write_text(bench.text(words))
    for ask in (lambda: bench.launch(study), lambda: plan_verb.plan(str(file), bench.store.root, probe=False)):
        with pytest.raises(
            UserError, match=r"^sought: trial 0 was run \w+ and would now be run \w+: .*give the study another name"
        ):
            ask()
    assert len(bench.start(bench.study(words, "renamed"))) == 3
    assert bench.trials(study) == found
    for module in (sources, jobs, plan_verb):
        monkeypatch.setattr(module, "NUMERICS_VERSION", version)
    plan_verb.plan(str(file), bench.store.root, probe=False)
    assert len(bench.start(study)) == 1
    assert "running" not in bench.states(study)


TUNED = """
name: tuned
base:
  data: {name: scenes, select: 0.25}
  student: {name: segformer_tiny}
  teacher: {name: segformer_mini, train: {epochs: 1}}
  optim: {weight_decay: 0.01}
  distill: {pea: {}}
variants:
  taught: {optim.weight_decay: 0.02}
tune_each: {trials: 2, space: {distill.pea.weight: {uniform: [0.1, 1.0]}}}
"""


def test_trials_of_a_tuned_arm_are_refused_where_the_base_now_trains_another_teacher(tmp_path):
    """The search of the arm is the same, as the arm sets what has changed in the base."""
    study, changed = read(TUNED, "tuned"), read(TUNED.replace("0.01", "0.03"), "tuned")
    search = searches(study)["taught"]
    assert search_identity(search) == search_identity(searches(changed)["taught"])
    run = trial_run(search, 0, {"distill.pea.weight": 0.5})
    ids = RunIds(Sources(2, {data_key(run.config.data): ("train", "val")}))
    who = {"study": "tuned", "arm": run.arm, "seed": run.seed, "role": "trial", "key": run.key}
    trial = {"search": search_identity(search), "number": 0, "values": {"distill.pea.weight": 0.5}}
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append({"event": "trial", "run_id": ids.of(run.config, run.key, run.teacher), **who, **trial})
    (before,), (now,) = (StudyState(asked, ledger).searches for asked in (study, changed))
    refuse_changed(before, ids.of)
    with pytest.raises(
        UserError, match=r"^tuned: taught trial 0 was run .* would now be run .*, teacher or numerics have"
    ):
        refuse_changed(now, ids.of)


@pytest.mark.slow
def test_a_search_is_refused_where_weights_that_only_some_trials_read_have_changed(bench, tmp_path):
    files = [tmp_path / f"{name}.pt" for name in "ab"]
    model = build_model(parse({"student": {"name": "segformer_tiny"}}).student, 19).state_dict()

    def write(file, value):
        torch.nn.init.constant_(model["patch_embed1.proj.bias"], value)
        torch.save({"model": model}, file)

    for value, file in enumerate(files):
        write(file, float(value))
    study = bench.study(f"{{sampler: grid, space: {{student.init: {{choice: [{files[0]}, {files[1]}]}}}}}}")
    assert len(bench.start(study)) == 2
    assert bench.start(study) == []
    write(files[1], 2.0)
    with pytest.raises(UserError, match="sought: trial 1 was run"):
        bench.launch(study)
