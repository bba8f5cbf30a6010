"""Shared: what the runs of a cohort have in common; each thing is made when the first run asks for it."""

from __future__ import annotations

import functools
from collections.abc import Iterable

from trainer import parallel
from trainer.config import TrainConfig
from trainer.data.stream import Stream, threads_of_stream
from trainer.measure.device import pick_device
from trainer.models.base import SegModel
from trainer.place import Place
from trainer.training.build import Data, build_teacher, open_data
from trainer.training.compiled import compiler_of
from trainer.training.networks import teacher_source
from trainer.training.sources import SourceReader
from trainer.training.system import SystemMonitor
from trainer.training.task import Distilled
from trainer.training.teacher import Teacher, verify


class Shared:
    """The sources, the data, the teacher and the stream of runs whose cohort keys fit and whose places are alike."""

    def __init__(self, place: Place) -> None:
        """`place` is that of any of the runs: they differ in their folders only. Raises UserError for a device that is
        not here, and where this machine cannot compile."""
        self.place = place
        self.device = pick_device(place.device)
        self.compiler = compiler_of(place, self.device)
        self.teacher: Teacher | None = None
        self._reader = SourceReader(lambda _: place)
        self._data: Data | None = None
        self._model: SegModel | None = None

    def run_id(self, config: TrainConfig, place: Place) -> str:
        """The id of a run. Packs the data unless it already is. Raises UserError."""
        return self._reader.run_id(config, teacher=teacher_source(config, place))

    def open(self, config: TrainConfig) -> Data:
        """The data of all runs. Raises UserError."""
        if self._data is None:
            data = open_data(config, self.place)
            threads, pinned = threads_of_stream(self.device, self.place.threads), self.device.type == "cuda"
            worker = (parallel.rank(), parallel.world())
            self.stream = Stream(data.train, config, data.learn, *worker, threads=threads, pinned=pinned)
            self._data = data
        return self._data

    @functools.cached_property
    def monitor(self) -> SystemMonitor:
        """Watches the machine from its first use on."""
        return SystemMonitor(self.device)

    @property
    def steps_per_pass(self) -> int:
        """Optimiser steps of a pass over the data."""
        return self.stream.steps_per_epoch

    def teacher_model(self, config: TrainConfig, place: Place) -> SegModel | None:
        """The teacher's network on its device; None for a run of which no path needs it. Raises UserError."""
        if config.teacher is None or not config.active:
            return None
        if self._model is None:
            model = build_teacher(config, place, len(self.open(config).classes), self.open(config).dataset.channels)
            assert model is not None
            self._model = model.to(self.device)
            scales = (config.data.normalize, config.teacher.normalize)
            self.teacher = Teacher(self._model, frozenset(), config.teacher_precision == "bf16", *scales, self.compiler)
        return self._model

    def verify(self, config: TrainConfig, place: Place) -> None:
        """Raise UserError where the teacher misses the mIoU that a run's config states."""
        if config.active:
            assert self.teacher is not None
            verify(self.teacher, config, self.open(config), place)

    def teacher_of(self, students: Iterable[Distilled]) -> Teacher | None:
        """The teacher, which from now on computes what these students' paths need; None where none has a path."""
        needs = [student.teacher_needs for student in students if student.paths]
        if not needs:
            return None
        assert self.teacher is not None
        self.teacher.needs = frozenset[str]().union(*needs)
        return self.teacher
