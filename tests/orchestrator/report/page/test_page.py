"""The page as a file: its sections, what it says of a study that goes on, and that markup stays text."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace

import pytest
from PIL import Image

from orchestrator.report.page import panels, provenance
from orchestrator.report.page.checklist import answers
from orchestrator.report.page.document import page
from orchestrator.report.page.provenance import facts
from orchestrator.report.page.tables import table_html
from orchestrator.store.ledger import Ledger
from trainer.config import NUMERICS_VERSION, override

GOLDEN = """<div class="scroll"><table>
<thead><tr><th scope="col">arm</th><th scope="col" class="number">n</th><th scope="col" class="number">mIoU</th>\
<th scope="col">vs</th><th scope="col" class="number">difference [95 %]</th><th scope="col">verdict</th></tr></thead>
<tbody>
<tr class="teacher"><th scope="row">teacher</th><td class="number">1</td><td class="number">60.0</td><td>-</td>\
<td class="number"></td><td></td></tr>
<tr><th scope="row">alone</th><td class="number">8</td><td class="number">50.0 ± 0.3</td><td>-</td>\
<td class="number"></td><td></td></tr>
<tr><th scope="row">Base &lt;both&gt;</th><td class="number"><span class="yellow">7/8</span></td>\
<td class="number"><strong>55.0 ± 0.3</strong></td><td>alone</td><td class="number">+5.0 [4.6, 5.4]</td>\
<td><span class="green">better</span></td></tr>
</tbody></table></div><ul class="notes"><li class="warn">not finished: Base &lt;both&gt; seed 5: it &amp; so on</li>\
<li>bold: better than every other arm, directly or via others</li></ul>"""


def ids(html):
    return re.findall(r'<section id="(\w+)">', html)


@pytest.fixture(scope="module")
def golden_table():
    from ablations.table.shape import Column, Row, Table

    left = ("arm", "vs", "verdict")
    columns = ("arm", "n", "mIoU", "vs", "difference [95 %]", "verdict")
    rows = (
        Row(("teacher", "1", "60.0", "-", "", ""), {"arm": "teacher", "role": "teacher"}),
        Row(("alone", "8", "50.0 ± 0.3", "-", "", ""), {"arm": "alone", "role": "arm"}),
        Row(
            ("Base <both>", "7/8", "55.0 ± 0.3", "alone", "+5.0 [4.6, 5.4]", "better"),
            {"arm": "Base <both>", "role": "arm", "reference": "alone", "verdict": "better"},
        ),
    )
    heads = tuple(Column(name, right=name not in left, marked=name == "mIoU") for name in columns)
    return Table("study   about it", heads, rows, ("not finished: Base <both> seed 5: it & so on",))


def test_the_table_as_html(golden_table):
    assert table_html(golden_table) == GOLDEN


def test_a_study_of_arms_has_its_sections_and_no_others(synthetic):
    html = page(synthetic().report)
    assert ids(html) == ["table", "differences", "curves", "classes", "panels", "provenance", "checklist"]
    assert "Incomplete: " not in html


@pytest.mark.slow
def test_a_search_has_its_sections_and_no_others(synthetic):
    assert ids(page(synthetic("search").report)) == ["table", "search", "provenance", "checklist"]


def test_costs_that_differ_have_a_section(synthetic):
    assert "cost" in ids(page(synthetic("costs").report))


def test_a_study_that_goes_on_says_so(synthetic):
    report = synthetic(ends={("student alone", 5): "running", ("Base <both>", 5): None}).report
    assert "Incomplete: 17 of 19 runs ended, 1 running." in page(report)


ENDED = {("trial 3", 0): "refused", ("trial 4", 0): "refused", ("trial 6", 0): "failed"}


@pytest.mark.slow
def test_a_search_with_points_that_were_refused_is_complete(synthetic):
    report = synthetic("search", ends=ENDED).report
    html = page(report)
    assert "Incomplete: " not in html
    assert "<summary>All 19 runs</summary>" in html
    assert answers(report)["Runs that did not finish"] == "1 failed (nan), 2 failed (refused), 6 stopped"


@pytest.mark.slow
def test_what_another_study_made_of_a_trial_since_is_not_how_it_ended(synthetic):
    made = synthetic("search")
    again = next(run_id for run_id, trial in made.report.searched[0].history if trial.state == "stopped")
    Ledger(made.store.ledger).append({"event": "started", "run_id": again, "key": again, "study": "other"})
    assert "Incomplete: " not in page(made.report)
    assert answers(made.report)["Runs that did not finish"] == "6 stopped"


def test_a_study_before_its_first_run_has_a_page(synthetic):
    everything = {(run.plan.arm, run.plan.seed): None for run in synthetic("costs", "first").report.members}
    html = page(synthetic("costs", ends=everything).report)
    assert ids(html) == ["table", "checklist"]
    assert "Plotly.react" not in html, "nothing is drawn, so nothing that draws is sent"


def test_names_are_text_wherever_they_stand(synthetic):
    html = page(synthetic().report)
    body = re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL)
    assert "Base <both>" not in body
    assert "Base &lt;both&gt;" in body
    figures = re.findall(r'<script type="application/json">(.*?)</script>', html)
    assert len(figures) == 3
    for figure in figures:
        assert "<" not in figure, "a tag could open in it"
    # Plotly reads tags in what it is to write.
    assert "Base &lt;both&gt;" in {trace.get("name") for trace in json.loads(figures[1])["data"]}


def test_nothing_is_loaded_from_elsewhere(synthetic):
    html = page(synthetic().report)
    body = re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL)
    assert re.findall(r'(?:src|href)="(?!data:|#)', body) == []
    assert "default-src 'none'" in html


def test_pictures_are_cut_from_the_panels(synthetic):
    html = page(synthetic().report)
    names = re.findall(r'alt="validation image (\d): ([^"]*)"', html)
    arms = ["teacher segformer_mini", "student alone", "Base &lt;both&gt;", "without PEA &amp; CSF"]
    assert names == [(number, name) for number in "12" for name in ("image", "truth", *arms)]


def test_provenance_counts_the_values_that_differ(synthetic):
    report = synthetic().report
    report.runs[0].environment["torch"] = "2.11.0"
    found = facts(report.runs)
    assert found["torch"] == {"2.11.0": 1, "2.12.1": 18}
    assert found["git commit"] == {"0123abcd": 19}
    assert found["data: train"] == {"aaaa": 19}
    assert found["teacher weights"] == {"best.pt, sha256 c0ffeec0ffee": 19}, "and not where the file lay"


def test_what_runs_tell_as_they_finish_is_counted_among_those(synthetic):
    report = synthetic("search").report
    for run in report.runs:
        run.environment["torch"] = "2.12.1"  # of its driver, which a trial that was stopped has too
    ended = [run for run in report.runs if run.status == "finished"]
    ended[0].environment |= {"device": "cuda", "torch": "2.11.0"}
    (said, _) = provenance.section(report).blocks
    assert (len(ended), len(report.runs)) == (15, 21)
    assert "<dt>data: train</dt><dd>aaaa</dd>" in said
    assert '<dd>cpu <span class="dim">in 14 of 15 finished runs</span><br>' in said
    assert '<br>2.12.1 <span class="dim">in 20 of 21 runs</span></dd>' in said


def test_the_list_of_runs_says_what_is_odd_about_each(synthetic):
    report = synthetic(ends={("student alone", 5): "failed"}).report
    report.groups["student alone"][0].run.notes.append("resumed from the previous checkpoint")
    body = page(report)
    assert "<td>nan: loss/pea is nan at step 3</td></tr>" in body
    assert "<td>resumed from the previous checkpoint</td></tr>" in body


def test_the_checklist_is_answered_from_facts(synthetic):
    found = answers(synthetic(ends={("student alone", 5): "failed"}).report)
    assert found["What is compared"] == "Base <both> against student alone; without PEA & CSF against Base <both>"
    assert (
        found["Seeds"] == "0, 1, 2, 3, 4, 5, the same for an arm and its reference; finished: 6 in 2 arms, 5 in 1 arm"
    )
    assert found["Compute"] == "18.00 h on cpu (a CPU, 2 threads)"
    assert found["Runs that did not finish"] == "1 failed (nan)"
    assert (
        found["Code"]
        == f"git commit 0123abcd; numerics version {NUMERICS_VERSION}; torch 2.12.1; with uncommitted changes"
    )
    assert found["Training"] == "epochs: 9; global batch: 8; learning rate: 0.001"
    assert "paired differences and two one-sided t tests within ±0.3 points, " in found["Test"]
    assert "Holm over 2 contrasts, 5 % family-wise" in found["Test"]
    assert found["Choice of hyperparameters"].startswith("none")


def test_the_checklist_gives_no_single_value_to_what_was_searched(synthetic):
    assert answers(synthetic("search").report)["Training"] == "epochs: 9; global batch: 8; learning rate: searched"


def test_the_checklist_states_the_budget_of_each_search(synthetic):
    found = answers(synthetic("tuned").report)["Choice of hyperparameters"]
    assert found == (
        "student alone: 16 of 16 trials, tpe, by select/miou, over lr; "
        "both: 16 of 16 trials, tpe, by select/miou, over csf.weight, lr"
    )


def test_the_colours_of_classes_are_named_under_the_pictures(synthetic):
    html = page(synthetic().report)
    key = html.split('<ul class="key">')[1].split("</ul>")[0]
    assert '<span style="background:#804080"></span>road' in key
    assert '<span style="background:#000000"></span>no label' in key


def test_a_picture_is_enlarged_by_a_click(synthetic):
    html = page(synthetic().report)
    assert html.count('<button type="button" title="larger"><img') == 12
    assert "showModal" in html


def test_the_page_has_the_value_of_each_seed(synthetic):
    report = synthetic().report
    html = page(report).split("Values of each seed")[1].split("</details>")[0]
    assert re.findall(r'<th scope="col"[^>]*>([^<]*)</th>', html) == ["arm", *(f"seed {seed}" for seed in range(6))]
    for seed in range(6):
        assert f">{report.scores['student alone'][seed]:.2f}</td>" in html


def test_what_explain_prints_is_folded_under_the_table(synthetic):
    report = synthetic().report
    fold = page(report).split("How to read this table")[1].split("</details>")[0]
    assert fold.count("<li>") == len(report.table.explained)
    assert "does not reject at the level at which" in fold


DAMAGE = {
    "empty": lambda content: b"",
    "no image": lambda content: b"panel\n" * 20,
    "cut off": lambda content: content[: len(content) // 2],
    "a flipped byte": lambda content: content[:60] + bytes([content[60] ^ 0xFF]) + content[61:],
    "too small": lambda content: _png(8, 8),
    "too low": lambda content: _png(3 * 64 + 8, 8),
    "a JPEG": lambda content: _png(3 * 64 + 8, 72, "JPEG"),
}


def _png(width, height, kind="PNG"):
    out = io.BytesIO()
    Image.new("RGB", (width, height)).save(out, kind)
    return out.getvalue()


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_panel_is_left_out_and_said(synthetic, damage):
    made = synthetic("costs")
    report = made.report
    panel = report.panels["mini"]
    panel.write_bytes(damage(panel.read_bytes()))
    blocks = str(panels.section(report).blocks)
    assert "The panels of mini seed 0 are damaged and left out." in blocks
    assert "validation image 1: B0" in blocks and "validation image 1: mini" not in blocks
    for path in report.panels.values():
        path.write_bytes(damage(path.read_bytes()))
    assert "damaged and left out" in str(panels.section(report).blocks)


def test_the_checklist_says_how_images_are_augmented_and_predicted(synthetic):
    report = synthetic().report
    assert "augmentation" not in answers(report)["Data"] and "predictions" not in answers(report)["Data"]
    changes = {"data.augment": ["flip", "photometric"], "eval.flip": True, "eval.scales": [0.5, 1.0]}
    study = report.study.model_copy(update={"base": override(report.study.base, changes)})
    said = answers(replace(report, study=study))["Data"]
    assert "; augmentation: flip, photometric; predictions: mirrored images too; scales 0.5, 1" in said
