"""How much of a product's operands is kept in which cache, while the rest passes by.

The loops around a micro-kernel are BLIS's (Low et al., Analytical Modeling Is Enough for High-Performance BLIS, 2016).
They reduce KC terms at a time, so that a packed panel of b (KC x NR) stays in cache while all rows of a pass. Low et al
keep it in the first cache; here it is in the second: a tile reads each number of the panel once per MR rows, which the
second cache delivers in time, and longer panels store and load the sums less often.
"""

from __future__ import annotations

from nnlite.runtime.processor import cache_sizes

#: bytes of a panel of b: the larger part of the second cache is left to the rows of a and of c that pass
PANEL_BYTES = cache_sizes()["L2"] * 3 // 8
#: bytes of the rows of a that are packed at a time: of the third cache, which up to eight cores share
BLOCK_BYTES = cache_sizes()["L3"] // 8
#: bytes of a line of the caches, on the processors that Numba compiles for
LINE = 64
#: bytes of the cache lines that a weight gradient reads for one tile, one line for each pixel, of x or of a panel of
#: dY: they stay in the first cache, and leave half of it to the other operand
LINE_BYTES = cache_sizes()["L1"] // 2
#: bytes of a panel of dY that a weight gradient reduces at a time
BAND_BYTES = cache_sizes()["L2"] // 4
