"""Cluster specs: what loads, what is refused and in which words, and how many runs fit."""

from pathlib import Path

import pytest
import yaml

from cluster.concurrency import check_a_machine_fits, concurrency, concurrency_on, footprint, grown
from cluster.machine_types import Machine
from cluster.retries import Retries
from cluster.spec import ClusterSpec, SpecError
from cluster.spec_file import load, names, with_workers

GPU_BOX = ClusterSpec(cpus_per_worker=4, gpus_per_worker=1)


def test_no_name_is_this_machine():
    assert load() == load("local") == ClusterSpec()
    assert load().address == "local"


@pytest.mark.parametrize("name", names())
def test_specs_that_come_with_the_project_load_and_fit_what_they_speak_of(name):
    spec = load(name)
    assert concurrency(spec, cpus=8, gpus=2) >= 1


def test_a_spec_compiles_and_repeats_only_where_it_says_so():
    assert not ClusterSpec().compile
    assert not ClusterSpec().deterministic


def test_names_leave_launcher_files_out():
    assert names() == ["aws", "gcp", "gpu", "hosts", "kuberay", "local", "raycluster", "slurm", "slurm-array"]


def test_a_file_wins_over_a_bare_name_and_a_folder_of_that_name_does_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("gpu").mkdir()
    assert load("gpu").gpus_per_worker == 1
    Path("mine.yaml").write_text("workers: 2\n")
    assert load("mine.yaml").workers == 2
    assert load(tmp_path / "mine.yaml").workers == 2


def test_an_empty_file_is_the_default(tmp_path):
    (tmp_path / "empty.yaml").write_text("# nothing yet\n")
    assert load(tmp_path / "empty.yaml") == ClusterSpec()


def test_another_number_of_workers_is_held_to_the_same_rules():
    assert with_workers(GPU_BOX, "2") == GPU_BOX.model_copy(update={"workers": 2})
    assert with_workers(GPU_BOX, "1-4") == GPU_BOX.model_copy(update={"workers": (1, 4)})
    with pytest.raises(
        SpecError, match=r"^--workers 0: workers: input should be greater than or equal to 1 but got 0$"
    ):
        with_workers(GPU_BOX, "0")
    shared = ClusterSpec(gpus_per_worker=0.5)
    with pytest.raises(SpecError, match=r"^--workers 2: gpus_per_worker must be 0 or whole where workers is 2"):
        with_workers(shared, "2")
    for text in ("two", "4-1", "1-", "-1"):
        with pytest.raises(SpecError, match=f"^--workers {text}: workers: "):
            with_workers(GPU_BOX, text)


def test_home_is_written_out(tmp_path):
    (tmp_path / "home.yaml").write_text("store: ~/store\ndata_roots: {camvid: ~/camvid}\n")
    spec = load(tmp_path / "home.yaml")
    assert spec.store == str(Path.home() / "store")
    assert spec.data_roots == {"camvid": str(Path.home() / "camvid")}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("worker: 2", "worker: unknown key; did you mean 'workers'?"),
        ("zzz: 2", "zzz: unknown key; known: address, workers,"),
        ("workers: 0", "workers: input should be greater than or equal to 1 but got 0"),
        ("workers: two", "but got 'two'"),
        (
            "workers: [4, 1]",
            "workers: must be a whole number, or the lower and the upper number such as [1, 4], but got",
        ),
        ("workers: [0, 4]", "such as [1, 4], but got [0, 4]"),
        ("workers: [1, true]", "such as [1, 4], but got [1, True]"),
        ("workers: [2]", "such as [1, 4], but got [2]"),
        ("{workers: [1, 2], gpus_per_worker: 0.5}", "must be 0 or whole where workers is 1 to 2 but got 0.5"),
        ("cpus_per_worker: .inf", "cpus_per_worker: input should be a finite number but got inf"),
        ("concurrency: many", "concurrency: must be `auto` or a whole number but got 'many'"),
        ("cohort: many", "cohort: must be `auto`, `off` or a whole number but got 'many'"),
        ("cohort: 0", "cohort: must be `auto`, `off` or at least 1 but got 0; remove the line to let it be chosen"),
        ("priority: 0", "priority: input should be greater than or equal to 0.01 but got 0"),
        ("max_runs: 0", "max_runs: input should be greater than or equal to 1 but got 0"),
        (
            "{concurrency: 4, max_runs: 2}",
            "concurrency must be at most max_runs, which is 2, but got 4; remove one of the two",
        ),
        ("concurrency: 0", "concurrency: must be `auto` or at least 1 but got 0; remove the line"),
        ("store: runs", "store: must be an absolute path but got runs"),
        ("store: hdfs://host/runs", "begin with s3://, gs://, abfs://, abfss://, file:/// but got hdfs://host/runs"),
        ("data_roots: {camvid: data/camvid}", "data_roots: must be an absolute path but got data/camvid"),
        ("tracking: [tensorboard]", "tracking: must name mlflow, and at most once each tensorboard and wandb, but got"),
        ("tracking: [mlflow, mlflow]", "but got [mlflow, mlflow]; write tracking: [mlflow, tensorboard]"),
        ("tracking: [mlflow, neptune]", "but got 'neptune'"),
        ("gpus_per_worker: 1.5", "gpus_per_worker above 1 must be a whole number but got 1.5"),
        ("gpus_per_worker: 0.001", "gpus_per_worker must be 0 or at least 0.01 but got 0.001"),
        ("{workers: 2, gpus_per_worker: 0.5}", "NCCL refuses two workers of a run on one GPU; set gpus_per_worker: 1"),
        (
            "price_per_gpu_hour: 2.5",
            "price_per_gpu_hour is 2.5 but gpus_per_worker is 0; set gpus_per_worker, or remove",
        ),
        ("- workers", "expected `key: value` lines (workers, cpus_per_worker, ...), but got ['workers']"),
        ("workers: [", "is not valid YAML"),
        ("cluster_name: mine", "is for `ray up`, not a cluster spec"),
        ("apiVersion: ray.io/v1", "is for `kubectl apply -f`, not a cluster spec"),
        ("name: mine\nbase: {}\nvariants: {a: {}}", "has base and is a study, not a cluster spec"),
    ],
)
def test_mistakes_are_one_line_with_file_key_rule_and_value(tmp_path, text, words):
    path = tmp_path / "mine.yaml"
    path.write_text(text + "\n")
    with pytest.raises(SpecError) as error:
        load(path)
    assert words in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("gpuu", "unknown cluster spec 'gpuu'; did you mean 'gpu'?"),
        (
            "mars",
            "unknown cluster spec 'mars'; known: aws, gcp, gpu, hosts, kuberay, local, raycluster, slurm, slurm-array",
        ),
        ("there/is.yaml", "no such cluster spec: there/is.yaml; those that come with the project: aws, gcp, gpu"),
    ],
)
def test_missing_specs_are_named_with_what_there_is(source, words):
    with pytest.raises(SpecError, match="cluster spec") as error:
        load(source)
    assert words in str(error.value)


def test_threads_are_the_whole_cpus_of_a_worker_unless_said():
    assert ClusterSpec(cpus_per_worker=0.5).torch_threads == 1
    assert ClusterSpec(cpus_per_worker=3.5).torch_threads == 3
    assert ClusterSpec(cpus_per_worker=4, threads=2).torch_threads == 2


def test_a_run_with_a_range_of_workers_is_counted_with_the_lower_number(tmp_path):
    (tmp_path / "mine.yaml").write_text("workers: [2, 4]\n")
    spec = load(tmp_path / "mine.yaml")
    assert (spec.workers, spec.least_workers, spec.most_workers) == ((2, 4), 2, 4)
    assert footprint(spec) == {"CPU": 2} and concurrency(spec, 6) == 3
    with pytest.raises(SpecError, match=r"a run needs 2 CPUs \(2 workers x 1\) but there is 1; lower workers or"):
        concurrency(spec, 1)
    assert ClusterSpec(workers=[3, 3]) == ClusterSpec(workers=3)


def test_footprint_is_all_workers_of_a_run():
    assert footprint(ClusterSpec()) == {"CPU": 1}
    assert footprint(ClusterSpec(workers=3, cpus_per_worker=0.1)) == {"CPU": 0.3}
    assert footprint(ClusterSpec(workers=2, cpus_per_worker=4, gpus_per_worker=1)) == {"CPU": 8, "GPU": 2}


@pytest.mark.parametrize(
    ("spec", "cpus", "gpus", "runs"),
    [
        (ClusterSpec(), 2, 0, 2),
        (ClusterSpec(), 7.9, 0, 7),
        (ClusterSpec(workers=2), 5, 0, 2),
        (ClusterSpec(cpus_per_worker=0.1), 0.3, 0, 3),  # 0.3 // 0.1 is 2 in floating point
        (ClusterSpec(concurrency=1), 8, 0, 1),
        (ClusterSpec(max_runs=2), 8, 0, 2),
        (ClusterSpec(max_runs=9), 8, 0, 8),
        (ClusterSpec(max_runs=9, concurrency=3), 8, 0, 3),
        (GPU_BOX, 32, 4, 4),
        (GPU_BOX, 10, 4, 2),
        (ClusterSpec(gpus_per_worker=0.5), 8, 2, 4),
        (ClusterSpec(gpus_per_worker=0.4), 8, 2, 4),  # not 5: a share never spans two GPUs
        (ClusterSpec(workers=2, gpus_per_worker=1), 8, 5, 2),
        (ClusterSpec(max_cpus=16), 0, 0, 16),
        (ClusterSpec(max_cpus=2), 4, 0, 4),
        (ClusterSpec(gpus_per_worker=1, max_cpus=48, max_gpus=8), 0, 0, 8),
    ],
)
def test_concurrency_is_what_fits(spec, cpus, gpus, runs):
    assert concurrency(spec, cpus, gpus) == runs


@pytest.mark.parametrize(
    ("spec", "cpus", "gpus", "words"),
    [
        (
            ClusterSpec(workers=3),
            2,
            0,
            "a run needs 3 CPUs (3 workers x 1) but there are 2; lower workers or cpus_per_worker",
        ),
        (
            ClusterSpec(cpus_per_worker=2),
            1,
            0,
            "a run needs 2 CPUs (1 worker x 2) but there is 1; lower cpus_per_worker",
        ),
        (GPU_BOX, 8, 0, "a run needs 1 GPU (1 worker x 1) but there are 0; lower gpus_per_worker"),
        (ClusterSpec(workers=4, max_cpus=2), 0, 0, "lower workers or cpus_per_worker, or raise max_cpus"),
        (ClusterSpec(concurrency=3), 2, 0, "concurrency is 3, but only 2 runs of 1 CPU fit on 2 CPUs"),
        (ClusterSpec(concurrency=3), 1, 0, "concurrency is 3, but only 1 run of 1 CPU fits on 1 CPU"),
    ],
)
def test_what_cannot_fit_is_refused_with_the_arithmetic(spec, cpus, gpus, words):
    with pytest.raises(SpecError) as error:
        concurrency(spec, cpus, gpus)
    assert words in str(error.value)


def test_a_worker_never_spans_two_machines():
    two = [Machine(4), Machine(4)]
    assert concurrency_on(ClusterSpec(workers=2, cpus_per_worker=4), two) == 1
    with pytest.raises(SpecError, match="1 worker of 6 CPUs cannot be placed on 2 machines of 4 CPUs"):
        concurrency_on(ClusterSpec(cpus_per_worker=6), two)
    with pytest.raises(SpecError, match="cannot be placed on 8 CPUs \\+ 1 CPU and 1 GPU"):
        concurrency_on(GPU_BOX, [Machine(8), Machine(1, 1)])


def test_no_machine_is_refused():
    with pytest.raises(SpecError, match="but there are 0"):
        concurrency_on(ClusterSpec(), [])


def test_each_cause_of_a_failure_has_a_budget():
    assert ClusterSpec().retries == Retries(lost=3, memory="auto", bug=0, nan=0)
    assert load("aws").retries == Retries(lost=8)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "max_failures: 2",
            "max_failures: is replaced by retries, which counts each cause separately; write retries: ",
        ),
        ("retries: {lots: 2}", "retries.lots: unknown key; did you mean 'lost'?"),
        ("retries: {memory: some}", "retries.memory: must be `auto` or a whole number but got 'some'"),
        ("retries: {memory: -1}", "retries.memory: must be `auto` or a whole number but got -1"),
        ("retries: {bug: -1}", "retries.bug: input should be greater than or equal to 0 but got -1"),
        ("retries: 3", "retries: must map causes to numbers, for example {lost: 3}, but got 3"),
    ],
)
def test_a_wrong_budget_is_refused_with_its_remedy(tmp_path, line, said):
    (tmp_path / "mine.yaml").write_text(line + "\n")
    with pytest.raises(SpecError) as caught:
        load(tmp_path / "mine.yaml")
    assert str(caught.value).startswith(f"{tmp_path / 'mine.yaml'}: {said}")


AUTOSCALED = {"address": "auto", "max_cpus": 8, "cpus_per_machine": 4}


@pytest.mark.parametrize(
    ("fields", "runs"),
    [
        ({}, 8),
        ({"cpus_per_worker": 3}, 2),  # one of a machine, though 8 CPUs would hold two and a rest
        ({"cpus_per_worker": 3, "max_cpus": 7}, 1),
        ({"cpus_per_worker": 2, "workers": 4}, 1),
        ({"max_gpus": 1, "gpus_per_machine": 1, "gpus_per_worker": 0.5}, 2),
    ],
)
def test_an_autoscaler_adds_whole_machines(fields, runs):
    spec = ClusterSpec(**{**AUTOSCALED, **fields})
    assert concurrency(spec, 1) == runs
    assert concurrency_on(spec, grown(spec, [Machine(0), Machine(4, spec.gpus_per_machine)])) == runs


def test_machines_of_unknown_size_are_not_waited_for():
    """An autoscaler whose machines are too small would add none, and the study would wait forever."""
    spec = ClusterSpec(address="auto", max_cpus=8, cpus_per_worker=8)
    with pytest.raises(SpecError, match=r"a worker needs 8 CPUs, no machine .* set cpus_per_machine"):
        check_a_machine_fits(spec, [Machine(0), Machine(4)])
    check_a_machine_fits(spec, [Machine(0), Machine(8)])
    check_a_machine_fits(spec.model_copy(update={"cpus_per_machine": 8}), [Machine(0)])


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"cpus_per_worker": 8}, "cpus_per_worker is 8 but cpus_per_machine is 4: a worker cannot span two machines"),
        ({"gpus_per_worker": 1, "max_gpus": 8}, "gpus_per_worker is 1 but gpus_per_machine is 0: a worker cannot span"),
        ({"max_cpus": None}, "cpus_per_machine is for an autoscaler; set max_cpus or max_gpus, or remove it"),
        ({"cpus_per_machine": None, "gpus_per_machine": 1}, "gpus_per_machine needs cpus_per_machine beside it"),
    ],
)
def test_a_worker_must_fit_a_machine(tmp_path, fields, error):
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump({**AUTOSCALED, **fields}))
    with pytest.raises(SpecError, match=error):
        load(tmp_path / "spec.yaml")


def test_a_limit_below_one_machine_is_no_machine():
    with pytest.raises(SpecError, match=r"a run needs 1 CPU .* but there are 0; .*raise max_cpus"):
        concurrency(ClusterSpec(**{**AUTOSCALED, "max_cpus": 3}), 0)
