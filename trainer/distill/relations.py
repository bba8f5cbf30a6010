"""What paths that compare relations between pixels share: unit vectors and their products, in full precision.

Letters: N samples, C channels, L pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def full(x: Tensor) -> Tensor:
    """x in float32, or float64 if x is: bfloat16 features do not make bfloat16 relations."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def unit(x: Tensor) -> Tensor:
    """x (N, C, L) with each pixel's vector at length 1; one that is 0 stays 0."""
    return F.normalize(full(x), dim=1)


def product(a: Tensor, b: Tensor) -> Tensor:
    """The matrix product a @ b, which autocast would round to 8 bits: too few for what is subtracted afterwards."""
    if a.is_meta:  # has no autocast to switch off
        return a @ b
    with torch.autocast(a.device.type, enabled=False):
        return a @ b
