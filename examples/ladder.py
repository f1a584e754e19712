"""The ladder: one layer from plain Python to the fastest algorithm there is, rung by rung.

    python examples/ladder.py [PICTURE.png] [N,C,H,W,K,R,S,stride,pad]

Every registered algorithm that is right is a rung; the slowest is the lowest. What takes too long is timed on a slice
of its work, and scaled (marked ~). Writes the picture (default: ladder.png).
"""

import sys

import nnlite as nn
from nnlite.lab.bench import bench
from nnlite.lab.ladder import picture, rungs, table
from nnlite.lab.shapes import resolve
from nnlite.lab.terminal import Bar, announce_compilation, console

path = sys.argv[1] if len(sys.argv) > 1 else "ladder.png"
shape = sys.argv[2] if len(sys.argv) > 2 else "128,32,26,26,64,3,3,1,0"  # the CNN's second layer

announce_compilation()
with Bar() as bar:
    algorithms = [nn.conv.get(name) for name in nn.conv.names()]
    run = bench(algorithms, resolve([shape], 128), ["forward"], seconds=20, bar=bar)
ladder = rungs(run.rows[0])
console().print(table(ladder, run.rows[0]))
picture(ladder, run).savefig(path, dpi=150)
print(f"wrote {path}")
