"""fit(): the training loop, in a single process, a Tune trial or one Ray Train worker."""

from __future__ import annotations

import time
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import torch

from trainer import parallel
from trainer.config import TrainConfig, UserError
from trainer.data.batch import Batch
from trainer.data.prefetch import on_device
from trainer.data.stream import HostBatch, Stream, threads_of_stream, to_batch
from trainer.files import checkpoint, generations, run_folder
from trainer.measure.device import pick_device
from trainer.measure.footprint import measure
from trainer.models.base import SegModel, SegOutput
from trainer.place import Place
from trainer.training.build import Data, build_distilled, build_teacher, check, open_data
from trainer.training.evaluate import evaluate
from trainer.training.learner import Learner
from trainer.training.networks import weights_used
from trainer.training.panel import save_panel
from trainer.training.recorder import Recorder
from trainer.training.schedule import learning_rate
from trainer.training.sources import run_id
from trainer.training.system import SystemMonitor
from trainer.training.task import count_pixels, pixel_weight
from trainer.training.teacher import Teacher, verify

Report = Callable[[dict[str, float], Path | None], None]


def fit(config: TrainConfig, place: Place, *, report: Report) -> dict[str, Any]:
    """Train one run to its end and return its result, resuming from what `place.out_dir` holds. A finished run whose
    last.pt is gone is trained again.

    `report(metrics, checkpoint)` is called by every worker after every epoch; worker 0 alone writes files.
    Raises UserError for a config or place that cannot be run, and NumericalError when a loss is not finite.
    """
    torch.set_num_threads(place.threads)
    is_rank_zero = parallel.rank() == 0
    identity = run_id(config, place)
    result = run_folder.read_result(place.out_dir)
    if result is not None and result["run_id"] == identity and run_folder.has_checkpoint(place.out_dir):
        if is_rank_zero:
            generations.delete_previous(place.out_dir)
        report(result["last"], place.out_dir / run_folder.LAST)
        return result
    data = open_data(config, place)
    fingerprints = {"train": data.train.fingerprint, "val": data.val.fingerprint}
    device = pick_device(place.device)
    classes = len(data.classes)
    model = build_teacher(config, place, classes)
    share, micro = config.optim.shares(parallel.world(), place.micro_batch)
    threads, pinned = threads_of_stream(device, place.threads), device.type == "cuda"
    stream = Stream(data.train, config, data.learn, parallel.rank(), parallel.world(), threads=threads, pinned=pinned)
    distilled = build_distilled(config, model, data).to(device)
    bf16 = config.optim.precision == "bf16"
    teacher = None
    if model is not None and config.teacher is not None:
        scales = (config.data.normalize, config.teacher.normalize)
        teacher = Teacher(model.to(device), distilled.teacher_needs, bf16, *scales)
        verify(teacher, config, data, place)
    weights = weights_used(config, place, distilled.student, model)
    run_folder.open_folder(place.out_dir, config, is_rank_zero)  # after every check that may raise UserError
    learner = Learner(distilled, config.optim, config.distill, place.compile)
    history, best = resume(place.out_dir, identity, learner, is_rank_zero)
    if is_rank_zero and len(history) < config.optim.epochs:
        run_folder.clear_result(place.out_dir)
    system = SystemMonitor(device)
    best_student: dict[str, torch.Tensor] | None = None  # not written yet

    with Recorder() as recorder:
        for epoch in range(len(history), config.optim.epochs):
            started = time.monotonic()
            distilled.train()
            for k, host in enumerate(on_device(stream.epoch(epoch), device)):
                step = epoch * stream.steps_per_epoch + k
                lr = learning_rate(config.optim, step, stream.steps_per_epoch)
                train_step(learner, teacher, host, config, micro, classes)
                learner.update(lr, step)
                system.sample()
                recorder.poll()
            losses = learner.drain()
            seconds = time.monotonic() - started
            metrics = {"epoch": float(epoch + 1), "step": float(step + 1), **losses, "lr": lr}
            metrics["images_per_s"] = stream.steps_per_epoch * config.optim.global_batch / seconds
            if (epoch + 1) % config.eval.every == 0 or epoch + 1 == config.optim.epochs:
                metrics |= validate(distilled.student, data, config, learner.autocast)
            metrics |= system.epoch()
            metrics["seconds"] = time.monotonic() - started
            history.append(metrics)
            improved = "val/miou" in metrics and metrics["val/miou"] > best.get("val/miou", -1.0)
            if improved:
                best = {"epoch": metrics["epoch"], "val/miou": metrics["val/miou"]}
                best_student = deepcopy(distilled.student.state_dict()) if is_rank_zero else None
            write = None
            finished = epoch + 1 == config.optim.epochs
            if is_rank_zero and (finished or (epoch + 1) % place.checkpoint_every == 0):
                state = to_resume_from(identity, fingerprints, learner, history, best)
                write = partial(save_checkpoints, place.out_dir, state, best_student, finished)
                best_student = None
            recorder.begin(write, partial(record_epoch, place.out_dir, metrics, is_rank_zero, report))
            if parallel.world() > 1:  # all workers must report at the same step
                recorder.finish()

    cost = check(config, place.cache_dir)
    if is_rank_zero:  # the other workers wait and do not disturb the measurement
        cost |= measure(distilled.student, config.data.size, device)
    result = {
        "key": config.key,
        "run_id": identity,
        "status": "finished",
        "last": history[-1],
        "best": best,
        "data": fingerprints,
        "weights": weights,
        "complexity": cost,
        "environment": run_folder.environment(str(device), device_name(device), place.threads, parallel.world()),
        "seconds": sum(epoch["seconds"] for epoch in history),
        "images_per_step": share * parallel.world(),
        "micro_batch": micro,
    }
    if is_rank_zero:
        save_panel(place.out_dir / "panel.png", distilled.student, data, config)
        run_folder.write_result(place.out_dir, result)
        generations.delete_previous(place.out_dir)
    parallel.barrier()
    return result


def train_step(
    learner: Learner, teacher: Teacher | None, host: HostBatch, config: TrainConfig, micro: int, classes: int
) -> None:
    """Accumulate the gradients of this worker's share of one step, in micro-batches of `micro` samples."""
    batch = to_batch(host, learner.device, config.data.normalize)
    counts = parallel.all_reduce(count_pixels(batch.label, classes))
    pixels = pixel_weight(counts, learner.distilled.class_weights)
    parts = [Batch(*tensors) for tensors in zip(*(tensor.split(micro) for tensor in batch), strict=True)]
    for position, part in enumerate(parts):
        output: SegOutput | None = teacher(part.image) if teacher else None
        learner.accumulate(part, output, pixels, config.optim.global_batch, last=position + 1 == len(parts))


def validate(student: SegModel, data: Data, config: TrainConfig, autocast: torch.autocast) -> dict[str, float]:
    """`val/...` on the validation split and `select/miou` on the held-out share of train, if there is one."""
    protocols = config.eval.protocols
    metrics = evaluate(
        student, data.val, data.classes, config.data, protocols, conditions=data.conditions, autocast=autocast
    )
    if len(data.select):
        chosen = evaluate(
            student,
            data.train,
            data.classes,
            config.data,
            protocols[:1],
            indices=data.select,
            prefix="select",
            autocast=autocast,
        )
        metrics["select/miou"] = chosen["select/miou"]
    return metrics


def to_resume_from(
    identity: str,
    fingerprints: dict[str, str],
    learner: Learner,
    history: list[dict[str, float]],
    best: dict[str, float],
) -> dict[str, Any]:
    """What a checkpoint holds, as a copy that training does not change.

    The fingerprints of the data, by split, are there because the mIoU was measured on it.
    """
    return {
        "run_id": identity,
        "final_weights": "",
        "data": fingerprints,
        "model": deepcopy(learner.distilled.state_dict()),
        "optimiser": deepcopy(learner.optimiser.state_dict()),
        "history": list(history),
        "best": dict(best),
    }


def save_checkpoints(
    out: Path, state: dict[str, Any], best_student: dict[str, torch.Tensor] | None, finished: bool
) -> None:
    """Write the student of the best epoch, where that is new, and the checkpoint to resume from.

    Where the run has finished, the latter also holds the digest of its weights, by which `finished_run` knows them.
    """
    if best_student is not None:
        checkpoint.save(out / run_folder.BEST, {"model": best_student, "data": state["data"], **state["best"]})
    if finished:
        state["final_weights"] = checkpoint.weights_digest(state["model"])
    generations.save(out, state)


def record_epoch(out: Path, metrics: dict[str, float], is_rank_zero: bool, report: Report) -> None:
    """Add an epoch to the run's record and report it."""
    if is_rank_zero:
        run_folder.append_epoch(out, metrics)
    report(metrics, out / run_folder.LAST)


def resume(
    out: Path, identity: str, learner: Learner, is_rank_zero: bool
) -> tuple[list[dict[str, float]], dict[str, float]]:
    """Load the checkpoint in `out`, if any, and return the metrics of the epochs done and the best epoch.

    Raises UserError when the checkpoint belongs to another run.
    """
    state = generations.restore(out, learner.device, is_rank_zero)
    if state is None:
        if is_rank_zero:
            run_folder.write_epochs(out, [])
        return [], {}
    if state.get("run_id") != identity:
        raise UserError(
            f"{out / run_folder.LAST} was computed from other data, weights or numerics "
            f"(run {state.get('run_id')}, now {identity}); choose another folder"
        )
    learner.distilled.load_state_dict(state["model"])
    learner.optimiser.load_state_dict(state["optimiser"])
    history = state["history"]
    assert [epoch["epoch"] for epoch in history] == list(range(1, len(history) + 1)), "epochs must follow each other"
    if is_rank_zero:
        run_folder.write_epochs(out, history)
    return history, state["best"]


def device_name(device: torch.device) -> str:
    """The product name of a GPU, "" for a CPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else ""
