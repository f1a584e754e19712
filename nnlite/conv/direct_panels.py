"""The weights of a correlation in the order in which its loops read them."""

from __future__ import annotations

import numpy as np

from nnlite import memory
from nnlite.conv.direct_plan import Correlation
from nnlite.jit import jit
from nnlite.simd import LANES


def panels(plan: Correlation, weight: np.ndarray, step_in: int, step_out: int) -> np.ndarray:
    """The weights in the order in which the loops read them: (groups, panels, reduction, width), zero beyond K.

    `step_in` and `step_out` lead to the next input and output channel of the correlation.
    """
    sizes, width = plan.sizes, plan.width
    shape = (sizes.groups, sizes.panels, sizes.reduction, width)
    in_order = step_out == 1 and plan.taps[0] == 0
    if in_order and shape[:2] == (1, 1) and width == sizes.group_out:
        return weight.reshape(shape)
    result = memory.empty(shape)
    tap_size = weight.shape[2] * weight.shape[3]
    _fill_panels(
        weight.reshape(-1), plan.taps * tap_size, sizes, weight.shape[3] // sizes.groups, step_in, step_out, result
    )
    return result


@jit
def _fill_panels(weight, taps, sizes, group_step, step_in, step_out, panels):
    width = panels.shape[3]
    for group in range(panels.shape[0]):
        for panel in range(panels.shape[1]):
            for tap in range(taps.size):
                for block in range(0, sizes.group_in, LANES):  # so that either order of reading stays in cache
                    for column in range(width):
                        k = panel * width + column
                        for c in range(block, min(block + LANES, sizes.group_in)):
                            i = taps[tap] + group * group_step + c * step_in + k * step_out
                            value = weight[i] if k < sizes.group_out else np.float32(0)
                            panels[group, panel, tap * sizes.group_in + c, column] = value
