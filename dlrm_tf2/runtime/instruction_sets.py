"""The instruction sets of the native CPU kernels, and which of them this processor has."""

from pathlib import Path

# Each set includes the sets before it. The position of a name is its number in dot_interaction.h.
NAMES = ("scalar", "avx2", "avx512", "avx512_bf16")

# The flags in /proc/cpuinfo that each instruction set needs, besides the flags of the ones before it. Linux leaves out
# a flag where it does not save the wide registers.
_CPUINFO_FLAGS = {
    "scalar": set(),
    "avx2": {"avx2", "fma", "f16c"},
    "avx512": {"avx512f", "avx512bw", "avx512vl", "avx512dq"},
    "avx512_bf16": {"avx512_bf16"},
}

# The values of ONEDNN_MAX_CPU_ISA that limit oneDNN to the same instructions. oneDNN has no less than SSE4.1.
# Source: oneDNN's developer guide, "CPU Dispatcher Control".
ONEDNN_NAMES = {"scalar": "SSE41", "avx2": "AVX2", "avx512": "AVX512_CORE", "avx512_bf16": "AVX512_CORE_BF16"}


def of_processor(cpuinfo: str | Path = "/proc/cpuinfo") -> tuple[str, ...]:
    """The instruction sets that this processor and its operating system have, the best one last.

    Args:
      cpuinfo: Linux's description of the processors. Without this file, only "scalar" is known to be there.
    """
    try:
        words = set(Path(cpuinfo).read_text().split())
    except OSError:
        words = set()
    found = []
    for name in NAMES:
        if not _CPUINFO_FLAGS[name] <= words:
            break
        found.append(name)
    return tuple(found)
