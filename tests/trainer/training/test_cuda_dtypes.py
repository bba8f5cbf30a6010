"""Every distiller with every student computes on CUDA in both precisions, as far as dtypes and shapes decide it.

No GPU is needed: forward passes run on fake CUDA tensors, and backward passes on the CPU, where each operation gets the
dtype that CUDA's autocast gives it.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_map

from tests.trainer.deeper_networks import DEEPER
from trainer.config import DataConfig, EvalConfig, Term
from trainer.data.batch import Batch
from trainer.deploy.onnx import Deployed
from trainer.deploy.open import Wanted, open_student
from trainer.deploy.predict import label_images
from trainer.distill import DISTILLERS, build_distillers
from trainer.distill.base import Distiller
from trainer.losses import LOSSES, at_label_size, build_losses
from trainer.models import MODELS
from trainer.models.base import SegModel
from trainer.models.masks import StochasticDepth
from trainer.models.norm import set_norm_batch
from trainer.training.evaluation.inference import logits_of
from trainer.training.evaluation.metrics import confusion

LOWER_PRECISION = """
    _convolution conv1d conv2d conv3d conv_tbc conv_transpose1d conv_transpose2d conv_transpose3d convolution
    cudnn_convolution cudnn_convolution_transpose prelu addmm addmv addr matmul einsum mm mv linalg_vecdot linear
    addbmm baddbmm bmm chain_matmul linalg_multi_dot _thnn_fused_lstm_cell _thnn_fused_gru_cell lstm_cell gru_cell
    rnn_tanh_cell rnn_relu_cell _cudnn_rnn _scaled_dot_product_flash_attention scaled_dot_product_attention
"""
"""Operations that CUDA's autocast computes in bfloat16, as torch's documentation of autocast lists them."""

PROMOTED = "addcdiv addcmul atan2 bilinear cross dot vdot grid_sampler index_put tensordot scatter_add"
"""Operations that it computes in the widest dtype of their inputs. It computes all others for which it has a rule in
float32."""

SMALLEST = ("segformer_tiny", "pvtv2_mini", "lvt_mini")
"""Of each family of networks; the others are tried by slow tests."""

STUDENTS = [
    name if name in SMALLEST else pytest.param(name, marks=pytest.mark.slow) for name in MODELS if name not in DEEPER
]
PRECISIONS = [
    *(pytest.param(name, "bf16", marks=pytest.mark.slow) for name in MODELS if name not in DEEPER),
    *(pytest.param(name, "fp32", marks=pytest.mark.slow) for name in SMALLEST),
]
"""(student, precision): shapes and devices are the same in both, and in fp32 nothing is cast."""
TEACHER, CLASSES, SAMPLES, SIZE = "segformer_mini", 5, 2, (64, 96)
WINDOWS = EvalConfig(inference="slide", window=(64, 64), stride=(32, 32), flip=True, scales=(1.0, 1.5))
CASES: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in DISTILLERS),
    ("csf", {"norm": "reference"}),
    *(("csf", {"distance": distance}) for distance in ("mse", "cwd", "kl")),
    *(("pea", {"distance": distance}) for distance in ("cwd", "kl", "channel_mse", "token_mse")),
    ("pea_gl", {"residual": True}),
]


@contextlib.contextmanager
def autocast(device: str, enabled: bool = True) -> Iterator[None]:
    """torch.autocast in bfloat16; torch's own is disabled for `cuda` on a machine without a GPU."""
    before = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
    torch.set_autocast_enabled(device, enabled)
    torch.set_autocast_dtype(device, torch.bfloat16)
    try:
        yield
    finally:
        torch.set_autocast_enabled(device, before[0])
        torch.set_autocast_dtype(device, before[1])
        torch.clear_autocast_cache()


def operations(key: str) -> set[str]:
    """The operations with a rule of autocast: `conv2d`, `sum.dim_IntList`."""
    names = torch._C._dispatch_get_registrations_for_dispatch_key(key)
    return {name.removeprefix("aten::") for name in names if name.startswith("aten::")}


@contextlib.contextmanager
def cuda_autocast_on_the_cpu() -> Iterator[None]:
    """Autocast of CPU tensors by CUDA's rules instead of the CPU's."""
    cuda = operations("AutocastCUDA")
    library = torch.library.Library("aten", "IMPL")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of every kernel that is overridden
            for name in sorted(cuda | operations("AutocastCPU")):
                library.impl(name, kernel(name, name in cuda), "AutocastCPU", allow_override=True)
        with autocast("cpu"):
            yield
    finally:
        library._destroy()


def kernel(name: str, ruled: bool) -> Callable[..., Any]:
    """What autocast does in place of an operation: cast its inputs, where CUDA has a rule for it, and call it."""
    base, _, overload = name.partition(".")
    operation = getattr(getattr(torch.ops.aten, base), overload or "default")
    without = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU)

    def run(*arguments: Any, **options: Any) -> Any:
        dtypes: set[torch.dtype] = set()
        tree_map(lambda value: dtypes.add(value.dtype) if is_cast(value) else None, (arguments, options))
        narrow = base in LOWER_PRECISION.split() or (base in PROMOTED.split() and torch.float32 not in dtypes)
        dtype = torch.bfloat16 if narrow else torch.float32

        def cast(value: Any) -> Any:
            return value.to(dtype) if ruled and is_cast(value) else value

        with torch._C._ExcludeDispatchKeyGuard(without):
            return operation(*tree_map(cast, arguments), **tree_map(cast, options))

    return run


def is_cast(value: Any) -> bool:
    """Autocast leaves integers and float64 as they are."""
    return isinstance(value, Tensor) and value.is_floating_point() and value.dtype != torch.float64


def fake_cuda(module: nn.Module) -> nn.Module:
    """A module on the meta device with fake CUDA tensors in place of its own; call it inside a FakeTensorMode."""
    for part in module.modules():
        for name, old in part.named_parameters(recurse=False):
            new = torch.empty(old.shape, dtype=old.dtype, device="cuda")
            part.register_parameter(name, nn.Parameter(new, old.requires_grad))
        for name, old in part.named_buffers(recurse=False):
            part._buffers[name] = torch.empty(old.shape, dtype=old.dtype, device="cuda")
    return module


def network(name: str) -> SegModel:
    """The network with at most two blocks a stage: further ones repeat the second."""
    model = MODELS[name](CLASSES)
    for part in model.modules():
        if isinstance(part, (nn.ModuleList, nn.Sequential)) and all(hasattr(block, "attn") for block in part):
            del part[2:]
    return model


def networks(student: str) -> tuple[SegModel, SegModel]:
    """A student in training, and a teacher."""
    taught, teacher = network(student), network(TEACHER).eval().requires_grad_(False)
    set_norm_batch(taught, SAMPLES)
    return taught, teacher


def batch_on(device: str) -> Batch:
    with torch.device(device):
        label = torch.zeros(SAMPLES, *SIZE, dtype=torch.int64)
        return Batch(torch.rand(SAMPLES, 3, *SIZE), label, torch.arange(SAMPLES))


def path_of(name: str, options: dict[str, Any], student: SegModel, teacher: SegModel) -> Distiller:
    path = build_distillers({name: Term(options=options)}, student.channels, teacher.channels, 0)[name]
    set_norm_batch(path, SAMPLES)
    return path


def task_losses(logits: Tensor, label: Tensor) -> dict[str, Tensor]:
    """The sum of every task loss."""
    large = at_label_size(logits, label)
    return {name: loss(large, label, None) for name, loss in build_losses({name: Term() for name in LOSSES}).items()}


@pytest.mark.slow
@pytest.mark.parametrize(("deep", "shallow"), DEEPER.items())
def test_a_deeper_network_repeats_the_blocks_of_a_shallower_one(deep: str, shallow: str) -> None:
    with torch.device("meta"):
        ours, theirs = network(deep), network(shallow)
        assert sum(1 for _ in MODELS[deep](CLASSES).modules()) > sum(1 for _ in MODELS[shallow](CLASSES).modules())
    assert describe(ours) == describe(theirs)


def describe(model: SegModel) -> list[tuple[str, str, list[tuple[int, ...]]]]:
    """Name, arguments and shapes of each module, but for the rates of drop-path, which follow from the depth."""
    parts = [(name, part) for name, part in model.named_modules() if name and not isinstance(part, StochasticDepth)]
    return [(name, part.extra_repr(), [p.shape for p in part.parameters(recurse=False)]) for name, part in parts]


@pytest.mark.parametrize(("student", "precision"), PRECISIONS)
def test_the_forward_of_every_distiller_on_fake_cuda_tensors(student: str, precision: str) -> None:
    with torch.device("meta"):
        taught, teacher = networks(student)
        paths = [path_of(name, options, taught, teacher) for name, options in CASES]
    with FakeTensorMode(), autocast("cuda", precision == "bf16"):
        for module in (taught, teacher, *paths):
            fake_cuda(module)
        batch = batch_on("cuda")
        out = taught(batch.image, batch.keys)
        with torch.no_grad():
            known = teacher(batch.image)
        parts = (*out.features, *out.embeds, out.logits, *known.features, *known.embeds, known.logits)
        assert {part.dtype for part in parts} == {torch.bfloat16 if precision == "bf16" else torch.float32}
        for name, loss in task_losses(out.logits, batch.label).items():
            assert (loss.shape, loss.dtype, loss.device.type) == ((), torch.float32, "cuda"), name
        for case, path in zip(CASES, paths, strict=True):
            loss = path(batch, out, known)
            assert (loss.shape, loss.dtype, loss.device.type) == ((), torch.float32, "cuda"), case


@pytest.mark.slow
@pytest.mark.parametrize("student", STUDENTS)
def test_the_backward_of_every_distiller_in_the_dtypes_of_cuda(student: str) -> None:
    taught, teacher = networks(student)
    paths = [path_of(name, options, taught, teacher) for name, options in CASES]
    batch = batch_on("cpu")
    with cuda_autocast_on_the_cpu():
        out = taught(batch.image, batch.keys)
        with torch.no_grad():
            known = teacher(batch.image)
        losses = [path(batch, out, known) for path in paths]
        losses += task_losses(out.logits, batch.label).values()
    torch.stack(losses).sum().backward()
    for module in (taught, *paths):
        for name, parameter in module.named_parameters():
            gradient = parameter.grad
            assert (gradient is not None) == parameter.requires_grad, name
            assert gradient is None or (gradient.dtype == torch.float32 and gradient.isfinite().all()), name


@pytest.mark.parametrize(("student", "precision"), PRECISIONS)
def test_evaluation_and_export_on_fake_cuda_tensors(student: str, precision: str) -> None:
    with torch.device("meta"):
        deployed = Deployed(network(student).eval(), DataConfig(size=SIZE), full_size=True)
    with FakeTensorMode(allow_non_fake_inputs=True), autocast("cuda", precision == "bf16"), torch.no_grad():
        model = fake_cuda(deployed).model
        images = np.zeros((SAMPLES, *SIZE, 3), np.uint8)
        keeps: Any = contextlib.nullcontext()  # autocast is as it is outside
        (logits,) = logits_of(model, images, DataConfig(size=SIZE), torch.device("cuda"), keeps)
        assert (logits.dtype, logits.device.type) == (torch.float32, "cuda")
        if student in SMALLEST:
            views = logits_of(model, images, DataConfig(size=SIZE), torch.device("cuda"), keeps, WINDOWS)
            assert [(view.dtype, view.device.type) for view in views] == [(torch.float32, "cuda")] * 4
        with autocast("cuda", False):  # students are exported in float32
            program = torch.export.export(deployed, (torch.from_numpy(images).to("cuda"),))
        (output,) = (node.meta["val"] for node in program.graph.output_node().all_input_nodes)
        assert (output.dtype, output.shape) == (torch.float32, (SAMPLES, CLASSES, *SIZE))


@pytest.mark.slow
def test_prediction_and_its_counts_in_the_dtypes_of_cuda(finished: Callable[..., Path]) -> None:
    student = open_student(finished({"optim.precision": "bf16"}) / "last.pt", Wanted(), "cpu")
    generator = np.random.default_rng(0)
    images = list(generator.integers(0, 256, (2, *student.config.data.size, 3), dtype=np.uint8))
    with cuda_autocast_on_the_cpu():
        on_cuda = label_images(student, images, images)
        counts = confusion(torch.from_numpy(on_cuda[0]), torch.from_numpy(on_cuda[0]), 19, 19)
    assert (counts.dtype, counts.trace()) == (torch.int64, on_cuda[0].size)
    for ours, theirs in zip(on_cuda, label_images(student, images, images), strict=True):
        assert (ours.dtype, ours.shape) == (np.uint8, student.config.data.size)
        assert (ours == theirs).mean() > 0.9  # the CPU's norms return bfloat16


@pytest.mark.slow
@pytest.mark.parametrize("student", SMALLEST)
def test_the_rules_on_the_cpu_give_the_dtypes_of_fake_cuda_tensors(student: str) -> None:
    with torch.device("meta"):
        whole = distilled(student)
    with FakeTensorMode(), autocast("cuda"), torch.no_grad():
        on_cuda = dtypes_of_outputs(fake_cuda(whole), batch_on("cuda"))
    with cuda_autocast_on_the_cpu(), torch.no_grad():
        assert dtypes_of_outputs(distilled(student), batch_on("cpu")) == on_cuda
    assert {torch.bfloat16, torch.float32} <= set(on_cuda.values())


def distilled(student: str) -> nn.Module:
    """Student, teacher and a path of each distiller as one module."""
    taught, teacher = networks(student)
    paths = {name: path_of(name, {}, taught, teacher) for name in DISTILLERS}
    return nn.ModuleDict({"student": taught, "teacher": teacher, "paths": nn.ModuleDict(paths)})


def dtypes_of_outputs(whole: nn.Module, batch: Batch) -> dict[str, torch.dtype]:
    """The dtype of the output of each module, by name."""
    found: dict[str, torch.dtype] = {}

    def record(name: str) -> Callable[..., None]:
        return lambda module, inputs, output: found.update({name: output.dtype} if isinstance(output, Tensor) else {})

    for name, module in whole.named_modules():
        module.register_forward_hook(record(name))
    taught, teacher, paths = (whole.get_submodule(name) for name in ("student", "teacher", "paths"))
    out, known = taught(batch.image, batch.keys), teacher(batch.image)
    for path in paths.children():
        path(batch, out, known)
    return found


def test_the_lists_name_operations_that_torch_has_a_rule_for() -> None:
    ruled = {name.partition(".")[0] for name in operations("AutocastCUDA")}
    lower, promoted = set(LOWER_PRECISION.split()), set(PROMOTED.split())
    assert ruled >= lower | promoted
    assert not lower & promoted


def test_the_rules_of_cuda_end_with_their_context() -> None:
    low = torch.ones(1, 1, 2, 2).bfloat16()
    with cuda_autocast_on_the_cpu():
        assert nn.functional.interpolate(low, scale_factor=2).dtype == torch.float32
        assert (low @ low.float()).dtype == torch.bfloat16
    with autocast("cpu"):
        assert nn.functional.interpolate(low, scale_factor=2).dtype == torch.bfloat16
