"""Keras on TensorFlow, loaded quietly and without packages that it does not need."""

import gc
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def _hidden(*packages: str) -> Iterator[None]:
    """Make packages look as if they were not installed, in the way that Python documents.

    MLflow installs them. Keras imports them if it can, which takes 4 of its 10 CPU-seconds.
    """
    absent = [name for name in packages if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


@contextmanager
def _silent_native_code() -> Iterator[None]:
    """Hide what TensorFlow writes to stderr before its log level takes effect."""
    saved = os.dup(2)
    with Path(os.devnull).open("w") as null:
        os.dup2(null.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


os.environ["KERAS_BACKEND"] = "tensorflow"
# TensorFlow also raises its errors in Python; its log only adds that there is no GPU.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# A processor's newest instructions, and LLVM's model of their cost, decide in which order a sum is
# computed. Limited to AVX, LLVM makes the same machine code on every x86 processor with AVX2.
_X86_FLAGS = ("--xla_cpu_max_isa=AVX",) if platform.machine() == "x86_64" else ()
_XLA_FLAGS = (
    *_X86_FLAGS,
    # XLA's newer matrix kernels would use AVX-512 regardless.
    "--xla_cpu_experimental_ynn_fusion_type=",
    # XLA's newer emitters take half a second longer to compile, and run no faster here.
    "--xla_cpu_use_fusion_emitters=false",
    # Kernels this small run no faster with unrolled loops, and take twice as long to compile.
    "--xla_backend_extra_options=xla_cpu_disable_loop_unrolling=true",
    # A few large parts compile sooner than XLA's 32.
    "--xla_cpu_parallel_codegen_split_count=4",
    # exp and tanh use the same instructions on every processor.
    "--xla_cpu_enable_platform_dependent_math=false",
)
os.environ["XLA_FLAGS"] = " ".join([*_XLA_FLAGS, os.environ.get("XLA_FLAGS", "")])
# Matrix products are Eigen's. The size of the caches decides where it cuts matrices into blocks.
# oneDNN's kernels, the default, would sum a block's last rows in another order.
os.environ["TENSORFLOW_USE_CUSTOM_CONTRACTION_KERNEL"] = "0"
# The same bytes are promised, and verified, on CPUs only.
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

# Imports create a million objects and no garbage; collecting takes a fifth of a script's time.
gc.disable()
with _hidden("PIL", "matplotlib", "pandas", "scipy", "sklearn"), _silent_native_code():
    import keras
    import tensorflow as tf
gc.freeze()
gc.enable()

# With more, the number of cores and the caches would decide how a sum is cut, and so its last bits.
tf.config.threading.set_intra_op_parallelism_threads(1)
# Its retracing warning is expected here: a curriculum compiles one program per sequence length.
tf.get_logger().setLevel("ERROR")

__all__ = ["keras", "tf"]
