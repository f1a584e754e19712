"""The ladder: one layer with every algorithm, from plain Python to the fastest.

    python examples/ladder.py [PICTURE.png] [N,C,H,W,K,R,S,stride,pad]

Every correct registered algorithm is timed; slow ones on a slice of the work, scaled (marked ~).
Writes a bar chart of their rates (default: ladder.png). The tutorial builds some of them, step by step: it is named at
the end.
"""

import argparse

from nnlite.lab.figures import bars
from nnlite.lab.ladder import climb, table, usual_shape
from nnlite.lab.shapes import resolve
from nnlite.lab.terminal import console
from nnlite.network.progress import announce_compilation
from nnlite.runtime.errors import writable_file

#: algorithm -> the step of the tutorial (examples/tutorial) that builds one like it
TUTORIAL = {
    "naive": "1_seven_loops.py",
    "im2col": "2_im2col.py",
    "numba": "3_compiled_loops.py",
    "numba_blocked": "4_blocking.py",
    "direct": "5_register_tile.py, 6_threads.py",
    "winograd": "7_winograd.py",
}

parser = argparse.ArgumentParser(description="One layer by every algorithm, from the slowest to the fastest.")
parser.add_argument("picture", nargs="?", default="ladder.png")
parser.add_argument("shape", nargs="?", help="default: the CNN's second layer")
options = parser.parse_args()
try:
    if not options.picture.endswith((".png", ".svg", ".pdf")):
        raise ValueError(f"picture: expected a name that ends in .png, .svg or .pdf. Received: {options.picture!r}")
    writable_file("picture", options.picture)
    (shape,) = resolve([options.shape], 128) if options.shape else [usual_shape(128)]
except (ValueError, OSError) as error:
    parser.error(str(error))

announce_compilation()
ladder, run = climb(shape)
console().print(table(ladder, run))
for rung in ladder:
    if rung.cell.algorithm in TUTORIAL:
        print(f"{rung.cell.algorithm}: built in examples/tutorial/{TUTORIAL[rung.cell.algorithm]}")
bars(run.rows, run).savefig(options.picture, dpi=150)
print(f"wrote {options.picture}")
