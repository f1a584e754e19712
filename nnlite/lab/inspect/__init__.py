"""`nnlite inspect`: the machine code of compiled functions, what an iteration of its loops does, how fast it can be.

`assembly` finds the loops in a text, `counts` counts their instructions, `faults` says in words what slows them down,
`bounds` asks OSACA for cycles, `compiling` gets the text for any processor, `command` prints.
"""
