"""Keras on TensorFlow, loaded quietly and without what it does not need."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def _hidden(*packages: str) -> Iterator[None]:
    """Make packages look as if they were not installed, in Python's documented way.

    Keras imports these only because MLflow has them installed: 4 of its 10 CPU-seconds.
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
    """Keep what native code writes to stderr from the user; Python's own messages still appear.

    TensorFlow reports what CPU it found before its log level is in force.
    """
    python_stderr, saved = sys.stderr, os.dup(2)
    sys.stderr = os.fdopen(saved, "w", closefd=False)
    with Path(os.devnull).open("w") as null:
        os.dup2(null.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)
            sys.stderr = python_stderr


os.environ["KERAS_BACKEND"] = "tensorflow"
# TensorFlow raises its errors in Python as well; its log adds that there is no GPU.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
_XLA_FLAGS = (
    # Intel's and AMD's processors share AVX2, and with no more than that give the same bytes.
    "--xla_cpu_max_isa=AVX2",
    # Its newer kernels for products of matrices would use AVX-512 all the same.
    "--xla_cpu_experimental_ynn_fusion_type=",
    # XLA's newer code for fused operations compiles half a second longer, and is no faster here.
    "--xla_cpu_use_fusion_emitters=false",
    # Kernels this small run no faster with their loops unrolled, and compile half as long without.
    "--xla_backend_extra_options=xla_cpu_disable_loop_unrolling=true",
    # exp and tanh in the same instructions on every processor.
    "--xla_cpu_enable_platform_dependent_math=false",
)
os.environ["XLA_FLAGS"] = " ".join([*_XLA_FLAGS, os.environ.get("XLA_FLAGS", "")])
os.environ["ONEDNN_MAX_CPU_ISA"] = "AVX2"  # of the older kernels, which take their place
# That the same params give the same bytes was verified on CPUs only.
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

with _hidden("matplotlib", "pandas", "scipy", "sklearn"), _silent_native_code():
    import keras
    import tensorflow as tf

# A fixed number, as results must not depend on that of the machine's cores: `training.set_threads`.
tf.config.threading.set_intra_op_parallelism_threads(2)
# It warns of what is meant: a curriculum compiles one program for each length of its sequences.
tf.get_logger().setLevel("ERROR")

__all__ = ["keras", "tf"]
