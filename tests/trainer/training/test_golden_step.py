"""Three whole training steps of the published code, TransKD-Base and TransKD-EA, B2 teaching B0: ours are the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from trainer.config import ModelConfig, OptimConfig, Term
from trainer.data.batch import Batch
from trainer.distill import build_distillers
from trainer.models import build_model
from trainer.models.norm import set_norm_batch
from trainer.training.learner import Learner
from trainer.training.task import Distilled, count_pixels, pixel_weight
from trainer.training.teacher import Teacher

OUTPUTS = 20  # the published networks have one more than the classes; its weight in the loss is 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("steps", "embeds"), [("step_transkd_base_b0", "pea"), ("step_transkd_ea_b0", "pea_ea")], ids=["base", "ea"]
)
def test_published_training_steps(steps: str, embeds: str, golden: Any, fill: Any) -> None:
    arrays = golden(steps)
    class_weights = torch.from_numpy(golden("loss_ce")["class_weights"])
    student = build_model(ModelConfig(name="segformer_b0", drop_path=0.0, dropout=0.0), OUTPUTS)
    frozen = fill.model(build_model(ModelConfig(name="segformer_b2"), OUTPUTS)).eval().requires_grad_(False)
    terms = {"csf": Term(options={"norm": "reference"}), embeds: Term()}
    paths = build_distillers(terms, student.channels, frozen.channels, 0)
    distilled = Distilled(student, paths, OUTPUTS, class_weights)
    set_norm_batch(distilled, 2)
    entries = dict(zip(arrays["names"].tolist(), arrays["positions"].tolist(), strict=True))
    assert set(entries) == set(distilled.state_dict())
    with torch.no_grad():
        for name, tensor in distilled.state_dict().items():
            # -1: the factors of the assistant, which start at the published values already
            value = fill.entry(entries[name], name, tuple(tensor.shape)) if entries[name] >= 0 else None
            if value is not None:
                tensor.copy_(value)
    optim = OptimConfig(lr=6e-5, weight_decay=0.01, decay_norms_and_biases=True, global_batch=2)
    learner = Learner(distilled.train(), optim, terms)
    teacher = Teacher(frozen, distilled.teacher_needs, bf16=False)
    label = torch.from_numpy(arrays["labels"]).long()
    batch = Batch(fill.uni(10007, (2, 3, 64, 128)), label, torch.arange(2))
    pixels = pixel_weight(count_pixels(label, OUTPUTS), class_weights)

    for step, published in enumerate(arrays["losses_ce_hcl_embed_total"].tolist()):
        learner.accumulate(batch, teacher(batch.image), pixels, 2, last=True)
        if step == 0:
            gradients = {n: -1.0 if p.grad is None else p.grad.norm().item() for n, p in distilled.named_parameters()}
        learner.update(6e-5, step)
        losses = learner.drain()
        ours = [losses[name] for name in ("loss/ce", "loss/csf", f"loss/{embeds}", "loss")]
        assert ours == pytest.approx(published, rel=1e-4), f"step {step}"

    expected = {name: row for name, *row in zip(entries, arrays["grad_l2"], arrays["param_l2_after3"], strict=True)}
    for name, parameter in distilled.named_parameters():
        gradient, after = expected[name]
        assert gradients[name] == pytest.approx(gradient, rel=1e-3, abs=1e-5), name
        norm = parameter.double().norm().item()
        # from gradients that are 0 but for rounding AdamW makes steps of lr, in either direction
        slack = 3 * 6e-5 * np.sqrt(parameter.numel()) if gradient < 1e-4 else 0.0
        assert norm == pytest.approx(after, rel=1e-3, abs=slack), name
