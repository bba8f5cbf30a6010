"""What benchmarks compare with computes what they say."""

import importlib
import importlib.util
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement
from PIL import Image

from orchestrator.report.page.forest import Difference
from orchestrator.report.page.parts import VERDICTS
from trainer.config import ModelConfig, OptimConfig, Term
from trainer.data.batch import Batch
from trainer.distill import build_distillers
from trainer.models import build_model
from trainer.models.norm import set_norm_batch
from trainer.training.learner import Learner
from trainer.training.task import Distilled, count_pixels, pixel_weight
from trainer.training.teacher import Teacher


def benchmark(name):
    """The module of a benchmark, which is a script."""
    path = Path(__file__).parents[1] / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def batch():
    draw = torch.Generator().manual_seed(0)
    image = torch.randn(4, 3, 64, 96, generator=draw)
    label = torch.randint(0, 7, (4, 64, 96), generator=draw)
    label[torch.rand(label.shape, generator=draw) < 0.1] = 255
    return Batch(image, label, torch.arange(4))


def test_the_published_style_computes_the_losses_and_gradients_of_ours(batch):
    plain = benchmark("published_style").PlainStep("segformer_mini", "segformer_tiny", 7)
    plain.student.rates = dict.fromkeys(plain.student.rates, 0.0)
    student = build_model(ModelConfig(name="segformer_tiny", drop_path=0, dropout=0), 7)
    teacher = build_model(ModelConfig(name="segformer_mini"), 7).eval().requires_grad_(False)
    terms = {"csf": Term(), "pea": Term()}
    distilled = Distilled(student, build_distillers(terms, student.channels, teacher.channels, 0), 7)
    set_norm_batch(distilled, 4)
    plain.student.net.load_state_dict(student.state_dict())
    plain.teacher.net.load_state_dict(teacher.state_dict())
    plain.csf.load_state_dict(distilled.paths["csf"].state_dict())
    plain.pea.load_state_dict(distilled.paths["pea"].state_dict())

    learner = Learner(distilled, OptimConfig(global_batch=4), terms)
    output = Teacher(teacher, distilled.teacher_needs, bf16=False)(batch.image)
    pixels = pixel_weight(count_pixels(batch.label, 7), None)
    learner.accumulate(batch, output, pixels, 4, last=True)
    loss, _ = plain.loss(batch)
    loss.backward()
    torch.testing.assert_close(loss.detach(), learner._step_losses[0].float(), rtol=1e-5, atol=1e-6)
    theirs = dict(plain.student.net.named_parameters())
    compared = 0
    for name, parameter in student.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(theirs[name].grad, parameter.grad, rtol=1e-3, atol=1e-6)
            compared += 1
    assert compared > 50


def test_counts_by_one_hot_maps_are_those_of_the_pixels(batch):
    predicted = torch.randint(0, 7, batch.label.shape, generator=torch.Generator().manual_seed(1))
    hit, wrong, missed = benchmark("published_style").one_hot_counts(predicted, batch.label, 7)
    valid = batch.label != 255
    for k in range(7):
        said, truth = (predicted == k) & valid, (batch.label == k) & valid
        expected = [(said & truth).sum(), (said & ~truth).sum(), (~said & truth).sum()]
        assert [hit[k], wrong[k], missed[k]] == [float(value) for value in expected]


@pytest.fixture
def bench(monkeypatch, tmp_path):
    """Runs `make bench`'s script with arguments; its results would be written below tmp_path."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    module = benchmark("bench")
    (tmp_path / "RESULTS.md").write_text(f"# Results\n\n{module.HEADING}\n\nbefore\n", encoding="utf-8")
    (tmp_path / "good.py").write_text("from ratios import record\nrecord('good', 2.0)\n", encoding="utf-8")
    (tmp_path / "bad.py").write_text("raise SystemExit(3)\n", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(Path(module.__file__).parent))
    monkeypatch.setattr(module, "HERE", tmp_path)
    monkeypatch.setattr(module, "plot", lambda measured, path: None)

    def run(names, *arguments):
        monkeypatch.setattr(module, "BENCHMARKS", {name: module.Benchmark(f"{name}.py") for name in names})
        monkeypatch.setattr(sys, "argv", ["bench.py", *arguments])
        module.main()

    run.results = lambda: (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    return run


def test_the_section_of_the_results_is_replaced_by_what_was_measured(bench):
    bench(["good"], "--write")
    assert "| good | 2.00 |" in bench.results() and "before" not in bench.results()


def test_a_benchmark_that_failed_leaves_the_results_as_they_were(bench):
    with pytest.raises(SystemExit, match="failed, and nothing is written: bad"):
        bench(["good", "bad"], "--write")
    assert "before" in bench.results()


def test_a_part_of_the_benchmarks_does_not_replace_the_results_of_all(bench, capsys):
    with pytest.raises(SystemExit):
        bench(["good", "bad"], "--only", "good", "--write")
    assert "not allowed with" in capsys.readouterr().err and "before" in bench.results()


@pytest.mark.slow
def test_the_forest_plot_has_a_symbol_for_each_verdict(tmp_path):
    forest = benchmark("forest")
    assert {symbol for _, symbol in VERDICTS.values()} == forest.SYMBOLS.keys()
    rows = [
        Difference(verdict, "student alone", 1.0 + n, 0.5, 1.5 + n, verdict, (0.7, 1.3 + n))
        for n, verdict in enumerate(VERDICTS)
    ]
    forest.draw(rows, 0.3, tmp_path / "all.png")
    forest.draw(rows[:1], None, tmp_path / "one.png")
    heights = [Image.open(tmp_path / name).height for name in ("one.png", "all.png")]
    assert heights[0] < heights[1]


def test_the_ideal_of_a_simulated_cluster_counts_the_nodes_that_are_there(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    simulated = importlib.import_module("simulated_cluster")
    nodes = [simulated.Node() for _ in range(4)]
    cluster = simulated.Cluster(nodes, lambda config: iter(()), lifetime_s=0.0, boot_s=30.0, start_s=0.0)
    cluster.ups += [(10.0, -2), (40.0, 2)]
    assert cluster.capacity_s(0.0, 50.0) == 10 * 4 + 30 * 2 + 10 * 4
    assert cluster.capacity_s(20.0, 45.0) == 20 * 2 + 5 * 4
    assert cluster.reached(0.0, 40.0) == 10.0
    assert cluster.reached(0.0, 100.0) == 40.0
    assert cluster.reached(5.0, 100.0) == 5.0 + 5.0 + 30.0 + (100 - 20 - 60) / 4


def test_the_newest_corner_of_the_matrix_is_in_the_ranges_of_the_project(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    matrix = benchmark("matrix")
    project = tomllib.loads((matrix.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    ranges = {one.name: one.specifier for one in map(Requirement, [*extras["train"], *extras["orchestrate"]])}
    versions = matrix.CORNERS["newest"]._asdict()
    assert versions.pop("python") in Requirement(f"Python{project['requires-python']}").specifier
    assert [name for name, version in versions.items() if version not in ranges[name]] == []
    lines = (matrix.ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    kept = {line.partition("==")[0] for line in lines if not matrix.FOLLOWING.match(line)}
    assert {"numpy", "optuna", "nvidia-ml-py"} <= kept
    assert not {"torch", "torchvision", "ray", "mlflow", "mlflow-skinny", "nvidia-cublas", "triton"} & kept
