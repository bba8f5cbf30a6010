"""The frozen teacher: its forward pass without a graph, and the check that it reaches its stated mIoU."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from trainer import parallel
from trainer.config import Normalize, TrainConfig, UserError, digest, plain_scale
from trainer.data.stream import statistics
from trainer.files.file_digest import file_digest
from trainer.files.run_folder import write_text
from trainer.models.all_mlp import FULL_PRECISION
from trainer.models.base import SegModel, SegOutput
from trainer.place import Place
from trainer.training.build import Data
from trainer.training.compiled import Compiler
from trainer.training.evaluation.evaluate import evaluate

TOLERANCE = 0.1
"""Allowed shortfall from the stated mIoU, in points: machines round differently."""


class Teacher:
    """Computes the outputs that the paths read. It is part of neither the DDP module nor the checkpoints.

    Images arrive with the student's normalisation, `given`; `wanted` is the one the teacher was trained with.
    """

    def __init__(
        self,
        model: SegModel,
        needs: frozenset[str],
        bf16: bool,
        given: Normalize = "imagenet",
        wanted: Normalize | None = None,
        compiler: Compiler | None = None,
    ) -> None:
        self.model = model
        self.needs = needs
        self.bf16 = bf16
        self.given = given
        self.wanted = wanted or given
        self._cast = False
        self._copies = compiler is not None and compiler.cuda_graphs
        self._forward = compiler(outputs) if compiler else outputs

    @torch.no_grad()
    def __call__(self, image: Tensor) -> SegOutput:
        """image (N, 3, H, W) -> SegOutput without a graph. (`inference_mode` tensors may not enter a loss's graph.)"""
        image = rescale(image, self.given, self.wanted)
        if self.bf16 and not self._cast:
            cast_weights(self.model)
            self._cast = True
        with torch.autocast(image.device.type, torch.bfloat16, enabled=self.bf16):
            output = self._forward(self.model, image, self.needs)
        return tree_map_only(Tensor, torch.clone, output) if self._copies else output


def outputs(model: SegModel, image: Tensor, needs: frozenset[str]) -> SegOutput:
    """The forward pass, as a function that can be compiled."""
    return model(image, None, needs)


def cast_weights(model: SegModel) -> None:
    """Cast to bfloat16, in place, the weights that autocast would cast at every forward pass: matrices and kernels with
    their biases. Norms keep float32, and so do the weights that the head multiplies with one another.

    Autocast computes the same bits with the network as before; without autocast it no longer runs.
    """
    exact = {part for module in model.modules() if isinstance(module, FULL_PRECISION) for part in module.modules()}
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        if module not in exact and any(parameter.ndim > 1 for parameter in own):
            for parameter in own:
                parameter.data = parameter.data.bfloat16()


def rescale(image: Tensor, given: Normalize, wanted: Normalize) -> Tensor:
    """image (N, 3, H, W) with normalisation `given` -> the same image with normalisation `wanted`."""
    if given == wanted:
        return image
    if given != "unit":
        mean, std = statistics(image, given)
        image = image * std + mean
    if wanted != "unit":
        mean, std = statistics(image, wanted)
        image = (image - mean) / std
    return image


def verify(teacher: Teacher, config: TrainConfig, data: Data, place: Place) -> None:
    """Raise UserError when the teacher misses its stated mIoU on val; cached per weights, data and protocol."""
    assert config.teacher is not None
    stated, path = config.teacher.miou, config.teacher.checkpoint
    if stated is None or path is None:
        return
    protocol = config.eval.protocols[0]
    seen = config.data.model_copy(update={"normalize": config.teacher.normalize or config.data.normalize})
    scale = plain_scale(seen.normalize)
    asked: list[object] = [file_digest(Path(path)), data.val.fingerprint, seen.size, scale, protocol]
    how = config.eval.model_dump(mode="json", exclude={"protocols", "every", "splits"}, exclude_defaults=True)
    asked += [how] if how else []
    file = place.cache_dir / "teachers" / f"{digest(asked)}.json"
    known = parallel.all_reduce(torch.tensor(int(file.exists()), device=next(teacher.model.parameters()).device))
    if int(known) == parallel.world():  # all workers evaluate together, so all or none must use the cache
        measured = json.loads(file.read_text(encoding="utf-8"))
    else:
        measured = evaluate(teacher.model, data.val, data.classes, seen, (protocol,), how=config.eval)["val/miou"]
        if parallel.rank() == 0:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_text(file, json.dumps(measured))
    if measured < stated - TOLERANCE:
        raise UserError(
            f"teacher {path} states {stated:.2f} mIoU but reaches {measured:.2f} on {config.data.name} val ({protocol} "
            "protocol); check its weights, teacher.normalize and data.size, or correct teacher.miou"
        )
