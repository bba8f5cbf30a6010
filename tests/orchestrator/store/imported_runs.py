"""A study, its runs as `fit` leaves them, taken into a store, and a launch of the study there."""

from __future__ import annotations

from ablations.study.schema import read
from cluster.spec import ClusterSpec
from orchestrator.launch import Launch
from orchestrator.store.import_runs import runs_below, take_in
from orchestrator.store.ledger import Ledger

STUDY = """
name: shared
base:
  data: {name: scenes, size: [64, 128], options: {train: 8, val: 4, size: [64, 128]}}
  student: {name: segformer_tiny}
  teacher: {name: segformer_mini, train: {epochs: 1}}
  optim: {lr: 1.0e-3, epochs: 2, global_batch: 4, norm_batch: 4}
  distill: {pea: {}}
variants:
  student alone: {distill: {}}
  taught: {}
"""


def nothing(*_):
    """A report that nobody reads."""


def imported(folder, store, measure=None):
    """Folder's name -> (state, what was said), in the order in which they were looked at."""
    found = take_in(runs_below(folder), store, Ledger(store.ledger), measure)
    return {one.folder.name: (one.state, one.about) for one in found}


def unfinished(run):
    """Make a run one that was cut off."""
    (run / "result.json").unlink()


def launched(text, store):
    """`transkd run` of a study up to where it would start something."""
    launch = Launch(read(text, "shared"), ClusterSpec(cpus_per_worker=0.5), store, {})
    launch.prepare(nothing)
    return launch
