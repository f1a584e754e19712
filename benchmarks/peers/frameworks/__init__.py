"""The peers by name: what each needs installed, and the module and class that drive it."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec

from benchmarks.peers.frameworks.base import Peer


@dataclass(frozen=True)
class Entry:
    """A peer as the command line knows it. `environment` is set before its process starts."""

    name: str
    module: str
    class_name: str
    requires: tuple[str, ...]
    option: str = ""  # what the class's constructor is told
    trains: bool = True
    convolves: bool = False  # single passes of a convolution
    caches: bool = False  # keeps what it compiles on disk, for the next process
    environment: dict[str, str] = field(default_factory=dict)
    avx2: dict[str, str] = field(default_factory=dict)  # holds it to AVX2, beside what holds NumPy
    checkout: tuple[str, ...] = ()  # the folder of the nnlite that is timed, if it is not this one
    unheld: str = ""  # why nothing holds it to AVX2

    def missing(self) -> list[str]:
        """The packages that are not installed."""
        return [name for name in self.requires if find_spec(name) is None]

    def make(self, threads: int) -> Peer:
        """In the worker's process: the driver, with its framework imported and limited to `threads`."""
        module = import_module(f"benchmarks.peers.frameworks.{self.module}")
        return getattr(module, self.class_name)(threads, self.option)


#: glibc's malloc retains freed memory, so the next step has no page faults; PyTorch's tuning guide recommends another
#: allocator for this
_KEEPS_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(4 << 30), "MALLOC_TRIM_THRESHOLD_": str(16 << 30)}
#: PyTorch's own kernels and what torch.compile generates, oneDNN, MKL (Intel's processors only), the C++ compiler
_TORCH_AVX2 = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "TORCHINDUCTOR_CPP_MARCH": "x86-64-v3",
}
_NUMBA_AVX2 = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "-avx512f"}
_QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3"}

PEERS = {
    entry.name: entry
    for entry in (
        Entry("nnlite", "nnlite_peer", "NnlitePeer", ("numba",), convolves=True, caches=True, avx2=_NUMBA_AVX2),
        Entry("torch", "torch_peer", "TorchPeer", ("torch",), "contiguous", avx2=_TORCH_AVX2),
        Entry(
            "torch-channels-last",
            "torch_peer",
            "TorchPeer",
            ("torch",),
            "channels_last",
            convolves=True,
            avx2=_TORCH_AVX2,
        ),
        Entry(
            "torch-malloc-tuned",
            "torch_peer",
            "TorchPeer",
            ("torch",),
            "channels_last",
            convolves=True,
            environment=_KEEPS_MEMORY,
            avx2=_TORCH_AVX2,
        ),
        Entry("torch-compile", "torch_peer", "TorchPeer", ("torch",), "compile", caches=True, avx2=_TORCH_AVX2),
        Entry(
            "keras-tensorflow",
            "keras_tensorflow_peer",
            "KerasTensorflowPeer",
            ("keras", "tensorflow"),
            environment={"KERAS_BACKEND": "tensorflow", **_QUIET},
            avx2={"ONEDNN_MAX_CPU_ISA": "AVX2"},  # Eigen: fixed when it was compiled, to AVX
        ),
        Entry(
            "keras-jax",
            "keras_jax_peer",
            "KerasJaxPeer",
            ("keras", "jax"),
            environment={"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"},
            # --xla_cpu_max_isa holds what XLA generates, but not the library that computes its products
            unheld="XLA's products and convolutions are YNNPACK's, which takes what the processor offers",
        ),
        Entry(
            "onnxruntime",
            "onnx_peer",
            "OnnxPeer",
            ("onnx", "onnxruntime"),
            trains=False,
            unheld="its kernels (MLAS) take what the processor offers",
        ),
    )
}
