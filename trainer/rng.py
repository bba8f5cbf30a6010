"""Random numbers as a function of (seed, purpose, epoch, sample) only, so that adding a module changes no others.

On the host (numpy), `derive` makes the key of a named stream and `generator` draws from it. On the device (torch), a
batch carries one 64-bit key per sample; each module hashes it with a salt made of the module's name.
The hash is the SplitMix64 finaliser (Steele, Lea and Flood, OOPSLA 2014) on wrapping 64-bit integers.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15
_MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_MASK = (1 << 64) - 1


def derive(*parts: int | str) -> int:
    """The unsigned 64-bit key of a stream, for example derive(seed, "order", epoch)."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def generator(*parts: int | str) -> np.random.Generator:
    """A numpy generator of the stream named by `parts`."""
    return np.random.Generator(np.random.Philox(key=derive(*parts)))


def permutation(seed: int, epoch: int, n: int) -> np.ndarray:
    """The order (n,) in which an epoch visits the training samples."""
    return generator(seed, "order", epoch).permutation(n)


def sample_keys(seed: int, epoch: int, samples: np.ndarray) -> np.ndarray:
    """One 64-bit key (N,) int64 for each sample index (N,) of an epoch."""
    base = np.uint64(derive(seed, "sample", epoch))
    x = np.asarray(samples, dtype=np.uint64) * np.uint64(_GOLDEN) + base
    for shift, multiplier in zip((30, 27), _MULTIPLIERS, strict=True):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(multiplier)
    return (x ^ (x >> np.uint64(31))).view(np.int64)


@contextlib.contextmanager
def initialising(*parts: int | str) -> Iterator[None]:
    """Draw the parameters of modules made inside from the stream named by `parts`; torch's global state is restored."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive(*parts) & (_MASK >> 1))  # torch.manual_seed would seed GPUs too
        yield


def salt(name: str) -> int:
    """The salt (signed 64 bits) with which a module of this name hashes the keys of a batch."""
    return _signed(derive("salt", name))


def uniform(keys: Tensor, salts: Tensor, lanes: Tensor) -> Tensor:
    """Uniform float32 numbers in [0, 1), (N, M), each a function of its key, salt and lane only. keys (N,), salts (M,)
    and lanes (M,), which number those of one salt, are int64."""
    x = _mix(_mix(keys[:, None] ^ salts) + lanes * _signed(_GOLDEN))
    return ((x >> 40) & 0xFFFFFF).to(torch.float32) * (1.0 / (1 << 24))


def _mix(x: Tensor) -> Tensor:
    for shift, multiplier in zip((30, 27), _MULTIPLIERS, strict=True):
        x = (x ^ _shift_right(x, shift)) * _signed(multiplier)
    return x ^ _shift_right(x, 31)


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64; torch's own is arithmetic."""
    return (x >> bits) & (_MASK >> bits)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value
