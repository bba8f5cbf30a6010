"""A search on a real store: what was trained before is not trained again, and other studies' trials teach it."""

import io
import json
from wsgiref.util import setup_testing_defaults

import pytest
from rich.console import Console

from ablations.study.schema import read
from ablations.table.trials import search_table
from orchestrator.search.learn_from import learn_from_line
from orchestrator.search.optuna_dashboard import database, mirror
from orchestrator.state.proposals import imported_trials, proposals
from orchestrator.state.study_state import StudyState
from orchestrator.terminal.log_lines import Lines, StudyProgress
from trainer.files.run_folder import read_epochs


@pytest.mark.slow
def test_no_config_is_trained_twice_and_a_stopped_one_is_not_taken_further(bench):
    study = bench.study(f"{{trials: 12, sampler: random, seed: 3, stop: asha, eta: 2, {bench.CHOICES}}}")
    trained = bench.run(study)
    assert len(trained) == len(set(trained)) == 4
    found = bench.trials(study)
    assert len(found) == 12
    by_run = {}
    for run_id, trial in proposals(study, bench.ledger):
        by_run.setdefault(run_id, set()).add((trial.state, trial.epochs))
    assert all(len(ends) == 1 for ends in by_run.values())
    assert {state for ends in by_run.values() for state, _ in ends} == {"finished", "stopped"}
    assert all(run.attempts == 1 for run in bench.ledger.outcomes().values())
    # Another study in the store finds what has finished; the stopped are its own to train.
    other = bench.study(f"{{trials: 4, sampler: grid, {bench.CHOICES}}}", "other")
    again = bench.run(other)
    assert {run.status for run in bench.ledger.outcomes().values()} == {"finished"}
    assert set(again) == {run_id for run_id, ends in by_run.items() if ("finished", 3) not in ends}
    assert [state for *_, state, _ in bench.trials(other)] == ["finished"] * 4
    # That the other study has finished them does not change what this one was told.
    assert bench.trials(study) == found


@pytest.mark.slow
def test_a_trial_killed_at_a_rung_that_it_lost_is_stopped_before_it_trains_on(bench, make_bench):
    study = bench.study(f"{{trials: 6, stop: asha, startup: 2, {bench.RANGES}}}")
    whole = make_bench()
    whole.run(study)
    expected = whole.trials(study)
    assert {state for *_, state, _ in expected} == {"finished", "stopped"}
    loser = next(number for number, _, state, _ in expected if state == "stopped")
    bench.run(study, trials=loser)
    bench.run(study, trials=1, until=1)
    run_id, trial = proposals(study, bench.ledger)[loser]
    assert trial.state == "running"
    bench.ledger.append_epochs(run_id, read_epochs(bench.store.run_dir(run_id)))
    bench.run(study)
    assert bench.trials(study) == expected
    assert len(read_epochs(bench.store.run_dir(run_id))) == 1


@pytest.mark.slow
def test_a_point_of_a_grid_that_cannot_be_is_a_failed_trial_that_says_why(bench):
    space = (
        "space: {distill.csf.weight: {choice: [0.5, 1.0]}, student.name: {choice: [segformer_tiny, segformer_mini]}}"
    )
    plain = bench.study(f"{{sampler: grid, {space}}}")
    # between the parameters of the two students
    study = plain.model_copy(update={"limits": type(plain.limits)(params_m=0.2)})
    trained = bench.run(study)
    found = [trial for _, trial in proposals(study, bench.ledger)]
    assert len(trained) == 2 and len(found) == 4
    failed = [trial for trial in found if trial.state == "failed"]
    assert {trial.values["student.name"] for trial in failed} == {"segformer_mini"}
    assert all("is above 0.2" in trial.reason for trial in failed)
    assert bench.run(study) == []


@pytest.mark.slow
def test_earlier_trials_are_told_once_however_the_other_study_goes_on(bench, make_bench):
    bench.run(bench.study(f"{{trials: 3, {bench.RANGES}}}", "first"))
    bench.run(bench.study("{trials: 2, space: {distill.csf.weight: {log: [0.1, 1.0]}}}", "narrow"))
    words = f"{{trials: 4, startup: 2, learn_from: any study, {bench.RANGES}}}"
    study = bench.study(words)
    bench.run(study, trials=2)
    imported = imported_trials(study, bench.ledger)
    assert [whose for whose, _ in imported] == ["first"] * 3, "a trial without pea's weight is none of this space"
    assert [t.metrics["select/miou"] for _, t in imported] == [
        trial.metrics["select/miou"]
        for _, trial in proposals(bench.study(f"{{trials: 3, {bench.RANGES}}}", "first"), bench.ledger)
    ]
    bench.run(bench.study(f"{{trials: 5, {bench.RANGES}}}", "first"))
    bench.run(study)
    assert imported_trials(study, bench.ledger) == imported
    # Nobody was there to learn from, and the sampler proposes otherwise.
    alone = make_bench()
    alone.run(bench.study(words))
    assert [values for _, values, *_ in alone.trials(study)] != [values for _, values, *_ in bench.trials(study)]
    changed = (
        bench.STUDY.replace("3.0e-3", "4.0e-3")
        .replace("NAME", "changed")
        .replace("SEARCH", words.replace(", space", ",\n  space"))
    )
    bench.run(read(changed, "changed.yaml"), trials=1)
    assert imported_trials(read(changed, "changed.yaml"), bench.ledger) == [], (
        "another learning rate is another question"
    )
    table = search_table(study, [trial for _, trial in proposals(study, bench.ledger)], taught={"first": 3})
    assert "Earlier trials that the search learnt from before its first proposal: 3 of first." in table.explained


def test_who_teaches_a_search_is_said_before_it_begins(bench):
    def said(names):
        return learn_from_line(bench.study(f"{{trials: 2, learn_from: {names}, {bench.RANGES}}}"), bench.ledger)

    assert said("any study") == "learns from: any study (no other search in this store)"
    bench.run(bench.study(f"{{trials: 3, {bench.RANGES}}}", "first"))
    bench.run(bench.study("{trials: 1, space: {distill.csf.weight: {log: [0.1, 1.0]}}}", "narrow"))
    names = "[first, narrow, sought]"
    line = "learns from: first (3 trials), narrow (0 trials), sought (no such search in this store)"
    assert said(names) == line
    assert said("any study") == "learns from: first (3 trials), narrow (0 trials)"
    bench.run(bench.study(f"{{trials: 2, learn_from: {names}, {bench.RANGES}}}"))
    bench.run(bench.study(f"{{trials: 5, {bench.RANGES}}}", "first"))
    assert said(names) == line, "what it was told is told once"


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["sampler: random, seed: 3, stop: asha, eta: 2", "sampler: grid"])
@pytest.mark.parametrize("deterministic", ["", "deterministic: true, "])
def test_the_board_counts_trials_that_are_the_run_of_another(bench, sampler, deterministic):
    names = "student.name: {choice: [segformer_tiny, segformer_mini]}"
    trials = "" if "grid" in sampler else "trials: 12, "
    words = f"{{{trials}{deterministic}{sampler}, {bench.CHOICES[:-1]}, {names}}}}}"
    study = bench.study(words)
    # a grid has holes: students beyond the limit
    study = study.model_copy(update={"limits": type(study.limits)(params_m=0.2)})
    bench.run(bench.study(f"{{sampler: grid, {bench.CHOICES}}}", "other"), trials=2)
    progress = StudyProgress(StudyState(study, bench.ledger))
    bench.run(study, view=Lines(Console(file=io.StringIO()), progress))
    states = {run.label: run.state for run in StudyProgress(StudyState(study, bench.ledger)).runs.values()}
    assert {run.label: run.state for run in progress.runs.values()} == states
    assert "missing" not in {state for label, state in states.items() if "trial" in label}


def test_another_study_of_the_same_words_is_learned_from(bench):
    words = f"{{trials: 2, learn_from: any study, {bench.RANGES}}}"
    bench.run(bench.study(words, "first"))
    bench.run(bench.study(words, "second"))
    assert [whose for whose, _ in imported_trials(bench.study(words, "second"), bench.ledger)] == ["first"] * 2
    assert imported_trials(bench.study(words, "first"), bench.ledger) == []


def test_two_objectives_leave_a_front(bench):
    space = (
        "space: {distill.csf.weight: {choice: [0.5, 1.0]}, student.name: {choice: [segformer_tiny, segformer_mini]}}"
    )
    study = bench.study(f"{{trials: 8, sampler: nsga2, against: params_m, startup: 2, {space}}}")
    bench.run(study)
    trials = [trial for _, trial in proposals(study, bench.ledger)]
    assert all(trial.costs["params_m"] > 0 for trial in trials)
    table = search_table(study, trials)
    on_front = [row.values for row in table.rows if row.values["front"]]
    assert {row["student.name"] for row in on_front} == {"segformer_tiny"}
    assert {row["distill.csf.weight"] for row in on_front} == {"0.5"}
    assert table.rows[0].values["front"] and "against params_m" in table.title


@pytest.mark.slow
def test_optuna_dashboard_shows_the_searches_of_the_store(bench):
    from optuna.storages import RDBStorage
    from optuna_dashboard._app import create_app

    study = bench.study(f"{{trials: 6, stop: asha, startup: 2, {bench.RANGES}}}")
    bench.run(study, trials=3)

    def shown():
        assert mirror(study, bench.store) == ""
        app = create_app(RDBStorage(database(bench.store)))

        def get(path):
            asked = {"PATH_INFO": path}
            setup_testing_defaults(asked)
            return json.loads(b"".join(app(asked, lambda *answer: None)))

        (summary,) = get("/api/studies")["study_summaries"]
        return summary, get(f"/api/studies/{summary['study_id']}")["trials"]

    summary, trials = shown()
    assert summary["study_name"].startswith("sought ")
    assert shown() == (summary, trials), "twice adds nothing"
    bench.run(study)
    summary, trials = shown()
    expected = {"finished": "Complete", "stopped": "Pruned"}
    history = [trial for _, trial in proposals(study, bench.ledger)]
    assert [trial["state"] for trial in trials] == [expected[trial.state] for trial in history]
    for ours, theirs in zip(history, trials, strict=True):
        assert {p["name"]: p["param_internal_value"] for p in theirs["params"]} == ours.values
        assert [point["step"] for point in theirs["intermediate_values"]] == list(range(1, ours.epochs + 1))
    # A trial that waited for another driver is written anew with what became of it.
    run_id, _ = proposals(study, bench.ledger)[0]
    lines = [
        line for line in bench.store.ledger.read_text().splitlines() if not (run_id in line and '"finished"' in line)
    ]
    bench.store.ledger.write_text("\n".join(lines) + "\n")
    assert shown()[1][0]["state"] == "Waiting"


def test_a_database_that_cannot_be_written_costs_nothing_and_is_said_once(bench):
    study = bench.study(f"{{trials: 2, {bench.RANGES}}}")
    bench.run(study)
    (bench.store.root / "optuna.db").write_text("not a database, but long enough to be looked at as one " * 100)
    said = mirror(study, bench.store)
    assert "optuna.db is not up to date" in said and "\n" not in said
    assert mirror(study, bench.store) == said
