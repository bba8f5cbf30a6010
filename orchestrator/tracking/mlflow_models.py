"""A run's students as MLflow models, and the data it read as dataset inputs. It imports mlflow, as mlflow_server.py."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from orchestrator.tracking.mlflow_server import Server, cut, pages
from orchestrator.tracking.run_record import Split, Student, named_digests
from trainer.config import UserError

LOG = logging.getLogger(__name__)

LOADER = "trainer.deploy.mlflow_model"
"""The module that MLflow imports to load a model."""
SENT = "transkd.sent"
"""A model's tag, set last: the digest of the checkpoint whose files have all arrived."""
OF_RUN = "transkd.mlflow_run"
"""A model's tag: the id of its run in MLflow. Not every server can search by `source_run_id`."""
DATASET_DIGEST = 36
"""The server's limit: characters of a dataset's digest."""
INPUTS = "dataset inputs; runs are sent without them"
MODELS = "models; they are sent as files of their runs"
"""What a server may be too old for, and what is done then."""
LACKING = ("ENDPOINT_NOT_FOUND", "NOT_IMPLEMENTED")
"""MLflow's error codes of a server that does not know a request."""


class Models:
    """Sends students and dataset inputs. All methods are idempotent. A server that is too old for one of them is named
    in one log line."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._lacking: set[str] = set()

    def send_inputs(self, run: str, splits: Iterable[Split]) -> None:
        """Add the splits as dataset inputs of a run; MLflow adds each once."""
        from mlflow.entities import Dataset, DatasetInput, InputTag
        from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

        inputs = []
        for split in splits:
            known = json.dumps({"data": split.data, "split": split.split, "fingerprint": split.fingerprint})
            dataset = Dataset(split.data, split.fingerprint[:DATASET_DIGEST], "transkd", source=known, profile=known)
            inputs.append(DatasetInput(dataset, [InputTag(MLFLOW_DATASET_CONTEXT, split.context)]))
        if inputs:
            self._ask(INPUTS, lambda: self._server.client.log_inputs(run, inputs))

    def send(self, experiment: str, run: str, students: Iterable[Student], tags: Mapping[str, str]) -> None:
        """Send the students that the server lacks as logged models of a run; `tags` are added to each.

        A server without logged models keeps them as artifacts of the run, in folders named as the models. A checkpoint
        that cannot be read is left out, with a log line.
        """
        students = list(students)
        held = self._ask(MODELS, lambda: self._held(experiment, run)) if students else None
        outputs = self._outputs(run) if held is not None else set()
        for student in students:
            (digest,) = named_digests([student.path]).values()
            same = [model for model in held or () if model.name == student.name]
            if any(model.tags.get(SENT) == digest for model in same):
                continue
            with tempfile.TemporaryDirectory() as temporary:
                try:
                    folder, classes = self._folder(student, Path(temporary))
                except UserError as error:
                    LOG.warning("tracking: no model '%s' of run %s: %s", student.name, tags["transkd.run_id"], error)
                    continue
                model = next((model for model in same if SENT not in model.tags), None)
                if held is not None and model is None:
                    model = self._create(experiment, run, student, tags)
                saved = Path(temporary) / "model"
                _save(saved, folder, student, run, None if model is None else model.model_id, classes)
                if model is None:
                    self._server.client.log_artifacts(run, str(saved), student.name)
                    continue
                self._server.client.log_model_artifacts(model.model_id, str(saved))
            self._finish(run, model.model_id, student, digest, is_output=model.model_id in outputs)
            for old in same:
                if old.model_id != model.model_id:
                    self._server.client.delete_logged_model(old.model_id)

    def _folder(self, student: Student, temporary: Path) -> tuple[Path, tuple[str, ...]]:
        from trainer.deploy.mlflow_model import student_folder  # imports torch

        folder = temporary / "student"
        return folder, student_folder(student.path.parent, student.path.name, folder)

    def _held(self, experiment: str, run: str) -> list[Any]:
        """The models of a run, complete or not."""
        search = self._server.client.search_logged_models
        where = f"tags.`{OF_RUN}` = '{run}'"
        return list(pages(search, [experiment], filter_string=where))

    def _outputs(self, run: str) -> set[str]:
        """The ids of the models that are listed as outputs of a run."""
        outputs = self._server.client.get_run(run).outputs
        return {output.model_id for output in outputs.model_outputs} if outputs else set()

    def _create(self, experiment: str, run: str, student: Student, tags: Mapping[str, str]) -> Any:
        ours = {name: text for name, text in tags.items() if name.startswith("transkd.")}
        told = {**ours, OF_RUN: run, "mlflow.note.content": student.note}
        params = {"file": student.path.name, "epoch": str(student.epoch)}
        return self._server.client.create_logged_model(
            experiment, student.name, run, tags=cut(told), params=params, model_type="segmentation"
        )

    def _finish(self, run: str, model: str, student: Student, digest: str, *, is_output: bool) -> None:
        from mlflow.entities import LoggedModelOutput

        if not is_output:
            self._server.client.log_outputs(run, [LoggedModelOutput(model, student.epoch)])
        data = student.measured_on
        of = {"dataset_name": data.data, "dataset_digest": data.fingerprint[:DATASET_DIGEST]} if data else {}
        self._server.log_points(run, student.points, model_id=model, **of)
        self._server.client.finalize_logged_model(model, "READY")
        self._server.client.set_logged_model_tags(model, {SENT: digest})

    def _ask(self, what: str, request: Callable[[], Any]) -> Any:
        """The answer to a request; None where the server does not know it."""
        if what in self._lacking:
            return None
        try:
            return request()
        except Exception as error:
            if not isinstance(error, NotImplementedError) and getattr(error, "error_code", "") not in LACKING:
                raise
            self._lacking.add(what)
            LOG.warning("the tracking server is too old for %s", what)
            return None


def _save(path: Path, folder: Path, student: Student, run: str, model: str | None, classes: tuple[str, ...]) -> None:
    """Write a model in MLflow's `python_function` flavour, which `trainer/deploy/mlflow_model.py` loads."""
    import mlflow.pyfunc
    import numpy as np
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    images = Schema([TensorSpec(np.dtype(np.uint8), (-1, -1, -1, 3))])
    labels = Schema([TensorSpec(np.dtype(np.uint8), (-1, -1, -1))])
    place = None if model else student.name
    made = Model(run_id=run, model_id=model, artifact_path=place, signature=ModelSignature(images, labels))
    mlflow.pyfunc.save_model(
        path,
        loader_module=LOADER,
        data_path=str(folder),
        mlflow_model=made,
        pip_requirements=list(student.requirements),
        metadata={"file": student.path.name, "epoch": student.epoch, "note": student.note, "classes": list(classes)},
    )
