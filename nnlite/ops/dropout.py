"""Dropout."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnlite.autograd import differentiable
from nnlite.runtime import random
from nnlite.runtime.errors import fraction
from nnlite.runtime.operands import Floats


@differentiable
def dropout(x: Floats, *, rate: float, seed: random.Seed | None = None) -> tuple[np.ndarray, Any]:
    """Sets each element to 0 with probability `rate` and divides the others by 1 - rate ("inverted" dropout).

    The mask is a function of `seed` (None draws one from nnlite's generator) and an element's position; backward
    computes it again. It has nothing to do with evaluation: leave the operation out there.
    Srivastava et al. (2014). Raises ValueError if rate is not in [0, 1), or seed no integer of at least 0.
    """
    rate = fraction("rate", rate)
    chosen = random.draw_seed() if seed is None else random.mask_seed("seed", seed)
    if rate == 0:
        return x, lambda dy: dy
    from nnlite.kernels.dropout import apply_mask

    return apply_mask(x, rate, chosen), lambda dy: apply_mask(dy, rate, chosen)
