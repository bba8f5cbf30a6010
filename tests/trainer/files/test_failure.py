"""The cause of an error, told from real ones: an allocation that fails, a disk that is full, a loss, a bug."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from trainer.config import NumericalError, UserError
from trainer.files import checkpoint
from trainer.files.failure import CAUSES, Failure, cause_of, chain, failure_of


def raised(action):
    """What an action raises."""
    try:
        action()
    except Exception as error:
        return error
    pytest.fail("nothing was raised")


def full_disk():
    with Path("/dev/full").open("w") as file:
        file.write("a line")


@pytest.mark.parametrize(
    ("action", "cause", "reason"),
    [
        (lambda: torch.empty(1 << 50), "memory", "no memory left for 4503599627370496 bytes"),
        (lambda: np.empty(1 << 50), "memory", "no memory left (MemoryError: Unable to allocate 8.00 PiB"),
        (full_disk, "disk", "OSError: [Errno 28] No space left on device"),
        (lambda: Path("/none/here").mkdir(), "bug", "FileNotFoundError: [Errno 2] No such file"),
        (lambda: 1 / 0, "bug", "ZeroDivisionError: division by zero"),
    ],
)
def test_what_the_machine_raises_has_its_cause(action, cause, reason):
    failure = failure_of(raised(action))
    assert failure.cause == cause and cause in CAUSES
    assert failure.reason.startswith(reason)


def test_our_own_errors_are_told_as_they_are():
    assert failure_of(UserError("lr must be positive; raise it")) == Failure("user", "lr must be positive; raise it")
    assert failure_of(NumericalError("loss/pea is not finite at step 7")).cause == "nan"


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "disk"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ..."), "memory"),
        (RuntimeError("[/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:3311"), "lost"),
        (torch.distributed.DistBackendError("NCCL error"), "lost"),
    ],
)
def test_what_cannot_be_raised_here_is_known_by_its_class_or_its_words(error, cause):
    assert cause_of(error) == cause


GONE = "Unable to determine the device handle for GPU0000:01:00.0: GPU is lost.  Reboot the system to recover this GPU"


@pytest.mark.parametrize(
    "words",
    [
        "CUDA error: uncorrectable ECC error encountered",
        "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be asynchronously reported",
        "CUDA error: device-side assert triggered",
        "CUDA error: unspecified launch failure",
        "CUDA error: the launch timed out and was terminated",
        "CUDA error: misaligned address",
        "CUDA error: unknown error",
        "CUDA error: CUDA-capable device(s) is/are busy or unavailable",
        "No CUDA GPUs are available",
        GONE,
        "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_UNEXPECTED_VALUE",
        "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm( handle, opa)`",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        "cuFFT error: CUFFT_EXEC_FAILED",
        "curand error: CURAND_STATUS_LAUNCH_FAILURE",
        "curand error: CURAND_STATUS_INTERNAL_ERROR",
        "curand error: CURAND_STATUS_INITIALIZATION_FAILED",
        "Failed to initialize NVML: Unknown Error",
        "Unable to determine the device handle for GPU0000:3B:00.0: Unknown Error",
        "CUDA error: MPS client terminated",
        "CUDA error: the MPS server is not ready to accept new MPS client requests",
        "CUDA error: driver shutting down",
        "CUDA error: context is destroyed",
        "CUDA driver error: device not found",
        "CUDA error: warp out-of-range address",
    ],
)
@pytest.mark.parametrize("kind", [RuntimeError, torch.AcceleratorError, torch.distributed.DistBackendError])
def test_a_fault_of_a_gpu_is_no_bug_and_is_told_in_one_line(kind, words):
    failure = failure_of(kind(words))
    assert failure.cause == "device"
    assert failure.reason.endswith(f" failed ({words.splitlines()[0]})")


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        ("CUDA error: out of memory", "memory"),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", "memory"),
        ("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED", "memory"),
        ("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED", "memory"),
        ("CUSPARSE_STATUS_INSUFFICIENT_RESOURCES when calling `cusparseCreate(handle)`", "memory"),
        ("curand error: CURAND_STATUS_ALLOCATION_FAILED", "memory"),
        ("std::bad_alloc", "memory"),
        (
            "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's workers are "
            "out of shared memory.",
            "memory",
        ),
        ("CUDA driver error: out of memory", "memory"),
        ("CUDA error: invalid argument", "bug"),
        ("CURAND_STATUS_TYPE_ERROR", "bug"),
        ("CUDA error: invalid device ordinal", "bug"),
        ("CUDA error: device not ready", "bug"),
        ("CUDA error: no kernel image is available for execution on the device", "bug"),
        ("cuDNN error: CUDNN_STATUS_BAD_PARAM", "bug"),
        ("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED", "bug"),
        ("CUDA error: CUBLAS_STATUS_INVALID_VALUE when calling `cublasSgemm`", "bug"),
        ("index 19 is out of bounds for dimension 0 with size 19", "bug"),
    ],
)
def test_a_wrong_call_on_a_gpu_is_no_fault_of_it(words, cause):
    assert cause_of(RuntimeError(words)) == cause


def test_an_import_that_fails_is_no_death_and_no_bug_to_retry():
    assert failure_of(raised(lambda: __import__("no_such_module"))) == Failure(
        "user", "ModuleNotFoundError: No module named 'no_such_module'"
    )


def hidden(disk_is_told):
    """A full disk behind another error, as torch.save raises it, or put aside on purpose."""
    try:
        full_disk()
    except OSError as error:
        raise RuntimeError("unexpected pos 704 vs 598") from (error if disk_is_told else None)


def test_a_cause_is_found_behind_the_error_that_hides_it():
    failure = failure_of(raised(lambda: hidden(True)))
    assert failure == Failure("disk", "OSError: [Errno 28] No space left on device")
    assert cause_of(raised(lambda: hidden(False))) == "bug"


def test_errors_that_are_each_others_cause_are_told_once():
    first, second = ValueError("first"), RuntimeError("second")
    first.__cause__, second.__context__ = second, first
    assert list(chain(first)) == [first, second]
    assert failure_of(first).cause == "bug"
    second.__context__, first.__context__ = OSError(errno.ENOSPC, "full"), first
    assert cause_of(first) == "disk"


def test_a_bug_is_told_with_the_line_of_ours_that_it_came_through(tmp_path):
    (tmp_path / "last.pt").mkdir()
    failure = failure_of(raised(lambda: checkpoint.save(tmp_path / "last.pt", {})))
    assert failure.cause == "bug"
    assert "(trainer/files/atomic.py:" in failure.reason


def test_a_full_disk_leaves_the_old_checkpoint_and_says_what_was_needed(tmp_path):
    path = tmp_path / "last.pt"
    checkpoint.save(path, {"epoch": 1})
    (tmp_path / f".last.pt.{os.getpid()}").symlink_to("/dev/full")  # where the next one is written first
    state = {"model": {"weight": torch.zeros(1 << 18)}, "history": [torch.zeros(1 << 18)]}
    error = raised(lambda: checkpoint.save(path, state))
    assert cause_of(error) == "disk"
    assert str(error) == f"[Errno 28] No space left on device for a checkpoint of 2.0 MiB: '{path}'"
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]
    assert checkpoint.load(path) == {"epoch": 1}
