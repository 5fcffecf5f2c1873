"""The op library: native kernels for TensorFlow, where they were built. Everything works without them, more slowly.

`python dlrm_tf2/ops/build.py` builds them; `make setup` and `pip install .` run it.
"""

import ctypes
import functools
from pathlib import Path
from types import ModuleType

from dlrm_tf2.runtime import instruction_sets, process

LIBRARY_FOLDER = Path(__file__).parent / "lib"
_BUILD = Path(__file__).parent / "build.py"


def available() -> bool:
    """Whether `library()` works here."""
    return why_unavailable() is None


def why_unavailable() -> str | None:
    """Why there are no native ops, as the end of a sentence; None where there are."""
    return _load()[1]


def library() -> ModuleType:
    """TensorFlow's module of the native ops, loaded once.

    Raises:
      RuntimeError: they are not available, with the reason.
    """
    module, why = _load()
    if module is None:
        raise RuntimeError(f"The native ops are not available: {why}")
    return module


def instruction_set() -> str:
    """The instruction set that the native ops use on the CPU: a name of instruction_sets.NAMES.

    Raises:
      RuntimeError: as `library`.
    """
    library()
    return instruction_sets.NAMES[_loaded_library().dlrm_chosen_cpu_instruction_set()]


def use_instruction_set(name: str | None) -> None:
    """Makes the native ops use another instruction set on the CPU, in this process, from now on.

    Args:
      name: a name of instruction_sets.NAMES; None for the best of the processor.

    Raises:
      RuntimeError: as `library`.
      ValueError: the processor does not have the instruction set.
    """
    library()
    _choose(name)


def kernels() -> ctypes.CDLL:
    """The kernels behind their C interface (src/dot_interaction/dot_interaction.h), without TensorFlow.

    Raises:
      OSError: the library was not built.
    """
    kernels = ctypes.CDLL(str(LIBRARY_FOLDER / "libdlrm_kernels.so"))
    kernels.dlrm_error_text.restype = ctypes.c_char_p
    kernels.dlrm_dot_interaction_output_width.restype = ctypes.c_int64
    kernels.dlrm_dot_interaction_output_width.argtypes = [ctypes.c_int64] * 2
    pointers, sizes, choices = [ctypes.c_void_p], [ctypes.c_int64], [ctypes.c_int] * 2
    kernels.dlrm_dot_interaction_cpu.argtypes = pointers * 2 + sizes * 4 + choices
    kernels.dlrm_dot_interaction_gradient_cpu.argtypes = pointers * 3 + sizes * 4 + choices
    if hasattr(kernels, "dlrm_cuda_status"):  # built with nvcc
        rest = sizes * 3 + choices + pointers
        kernels.dlrm_dot_interaction_cuda.argtypes = pointers * 2 + rest
        kernels.dlrm_dot_interaction_gradient_cuda.argtypes = pointers * 3 + rest
    return kernels


def why_no_cuda() -> str | None:
    """Why the native ops do not serve this machine's GPU, as the end of a sentence; None where they do."""
    if not available():
        return why_unavailable()
    library = kernels()
    if not hasattr(library, "dlrm_initialize_rows_cuda"):  # the last that was added
        return "the op library was built without CUDA; build it again with nvcc on the path"
    status = library.dlrm_cuda_status()
    return None if status == 0 else f"the CUDA kernels do not run here: {library.dlrm_error_text(status).decode()}"


@functools.cache
def _load() -> tuple[ModuleType | None, str | None]:
    """(module, None) or (None, why there is none)."""
    import tensorflow as tf

    why = refusal(LIBRARY_FOLDER, tf.__version__)
    if why is not None:
        return None, why
    try:
        module = tf.load_op_library(str(LIBRARY_FOLDER / "libdlrm_ops.so"))
    except (tf.errors.NotFoundError, OSError) as error:
        return None, f"{LIBRARY_FOLDER / 'libdlrm_ops.so'} does not load: {str(error).splitlines()[0]}"
    if not hasattr(_loaded_library(), "dlrm_choose_cpu_instruction_set"):
        return None, f"the op library was built from older sources; build it again: python {_BUILD}"
    _choose(process.force_instruction_set())
    return module, None


def _loaded_library() -> ctypes.CDLL:
    """The C interface of the library that TensorFlow has loaded: the same file is the same library."""
    return ctypes.CDLL(str(LIBRARY_FOLDER / "libdlrm_ops.so"))


def _choose(name: str | None) -> None:
    number = -1 if name is None else instruction_sets.NAMES.index(name)
    if _loaded_library().dlrm_choose_cpu_instruction_set(number) != 0:
        raise ValueError(f"The native ops cannot use {name}: this processor does not have it.")


def refusal(folder: Path, tensorflow_version: str) -> str | None:
    """Why the library in `folder` must not be loaded into this TensorFlow; None where it may.

    Args:
      folder: where the build put its files.
      tensorflow_version: of the TensorFlow that runs, such as "2.18.1".
    """
    if not (folder / "libdlrm_ops.so").is_file() or not (folder / "built_for.txt").is_file():
        return f"the op library was not built (no {folder / 'libdlrm_ops.so'})"
    built_for = (folder / "built_for.txt").read_text().strip()
    if built_for != tensorflow_version:
        return (
            f"the op library was built for TensorFlow {built_for}, this is {tensorflow_version}; "
            f"build it again: python {_BUILD}"
        )
    return None
