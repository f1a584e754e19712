"""`--isa avx2`: what holds a peer to AVX2, and what its libraries then say of the instructions that they use."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks.peers.frameworks import PEERS
from benchmarks.peers.process import PeerProcess

#: a peer that nothing holds does not take part in avx2, where the processor has more
NATIVE, AVX2 = ISAS = ("native", "avx2")
#: NumPy's BLAS, and its own loops; it ignores the names that its version does not know
_NUMPY_AVX2 = {
    "OPENBLAS_CORETYPE": "Haswell",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR",
}
#: makes oneDNN, MKL and TensorFlow log which instructions they use
_VERBOSE = {"ONEDNN_VERBOSE": "1", "MKL_VERBOSE": "1", "TF_CPP_MIN_LOG_LEVEL": "0"}
_SAYS = re.compile(r"cpu,isa:|^MKL_VERBOSE (oneMKL|Intel)|rebuild TensorFlow")


def processor_has(feature: str) -> bool:
    """Whether this processor has the instructions, by LLVM's name of them."""
    from llvmlite import binding

    return binding.get_host_cpu_features().get(feature, False)


def environment(name: str, isa: str) -> dict[str, str]:
    """The variables that hold a peer's process to `isa`."""
    return {**_NUMPY_AVX2, **PEERS[name].avx2} if isa == AVX2 else {}


def why_unheld(name: str, isa: str) -> str:
    """Why the peer would use more than `isa` on this processor; empty if it would not."""
    return f"cannot be held to AVX2: {PEERS[name].unheld}" if isa == AVX2 and _exceeds(name) else ""


def _exceeds(name: str) -> bool:
    return bool(PEERS[name].unheld) and processor_has("avx512f")


def witness(name: str, threads: int, data: Path, isa: str) -> list[str]:
    """What the peer's libraries say of their instructions, in a process that infers once and logs."""
    process = PeerProcess(name, threads, data, {**environment(name, isa), **_VERBOSE})
    try:
        said = process.ask("instruction_sets")
        process.ask("prepare", task="inference", model="small_cnn", batch_size=128)
        process.ask("burst", steps=1, unmeasured=0)
    finally:
        process.close()
    logged = process.log.read_text(errors="replace").splitlines()
    return said + list(dict.fromkeys(line.strip() for line in logged if _SAYS.search(line)))
