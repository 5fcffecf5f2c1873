"""What the compiler made of the CUDA kernels: registers, spills and instructions, per kernel and GPU. Needs no GPU.

    python bench/gpu/compile_report.py [--output bench/gpu/compile_report.json]

Needs nvcc and cuobjdump (of the CUDA toolkit; the package nvidia-cuda-cuobjdump has it too).
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

KERNELS = Path(__file__).resolve().parents[2] / "dlrm_tf2" / "ops" / "src"
EXACT = ("-fmad=false", "--prec-sqrt=true", "--prec-div=true")
SOURCES = {  # and the options of cuda.cmake; the sort is CUB's
    "dot_interaction/dot_interaction_cuda.cu": (),
    "embedding_rows/embedding_rows_cuda.cu": EXACT,
    "embedding_rows/status_cuda.cu": (),
    "hash_table/initial_rows_cuda.cu": ("-fmad=false",),
    "hash_table/key_index_cuda.cu": (),
}
ARCHITECTURES = (70, 75, 80, 86, 89, 90, 100, 120)
# HMMA: tensor cores. LDSM: ldmatrix. LDGSTS: asynchronous 16-byte copies. LDL, STL: local memory, that is, spills.
# LDG, STG: global memory, of any width; LDG.128, STG.128: the ones of 16 bytes.
INSTRUCTIONS = ("HMMA", "LDSM", "LDGSTS", "LDG", "LDG.128", "STG", "STG.128", "LDS", "STS", "FFMA", "LDL", "STL")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default=str(Path(__file__).parent / "compile_report.json"))
    arguments = parser.parse_args(argv)
    missing = [tool for tool in ("nvcc", "cuobjdump") if shutil.which(tool) is None]
    if missing:
        print(f"bench/gpu/compile_report.py: not on the path: {', '.join(missing)}", file=sys.stderr)
        return 1
    known = run("nvcc", "--list-gpu-code").split()
    version = re.search(r"release ([\d.]+), V([\d.]+)", run("nvcc", "--version"))[2]
    report = {"nvcc": version, "not_known_to_this_nvcc": [f"sm_{a}" for a in ARCHITECTURES if f"sm_{a}" not in known]}
    report["kernels"] = [
        row for source in SOURCES for a in ARCHITECTURES if f"sm_{a}" in known for row in rows_of(source, a)
    ]
    print(f"nvcc {version}; does not know {', '.join(report['not_known_to_this_nvcc']) or 'none of them'}")
    print(
        f"{'GPU':>6} {'kernel':<32} {'registers':>9} {'spills':>6} {'shared':>6} "
        + " ".join(f"{i:>7}" for i in INSTRUCTIONS)
    )
    for row in report["kernels"]:
        counts = " ".join(f"{row['instructions'][i]:>7}" for i in INSTRUCTIONS)
        print(
            f"{row['gpu']:>6} {row['kernel']:<32} {row['registers']:>9} {row['spill_bytes']:>6} "
            f"{row['shared_bytes']:>6} {counts}"
        )
    Path(arguments.output).write_text(json.dumps(report, indent=1) + "\n")
    return 0


def rows_of(source: str, architecture: int) -> list[dict]:
    """A row for each kernel of a source as compiled for one GPU. Shared memory: what is not asked for at launch."""
    gpu = f"sm_{architecture}"
    with tempfile.TemporaryDirectory() as scratch:
        cubin = str(Path(scratch) / "kernels.cubin")
        options = ["-O3", "-std=c++17", f"-arch={gpu}", "-Xptxas", "-v", "-cubin", *SOURCES[source]]
        assembled = run("nvcc", *options, "-I", str(KERNELS), "-o", cubin, str(KERNELS / source))
        listing = run("cuobjdump", "-sass", cubin)
    counts = {}
    for part in listing.split("Function : ")[1:]:
        mangled, _, body = part.partition("\n")
        words = re.findall(r"^\s*/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9]*)([\w.]*)", body, re.MULTILINE)
        words = [w for name, rest in words for w in (name, f"{name}.128" if ".128" in rest else "")]
        counts[mangled.strip()] = {instruction: words.count(instruction) for instruction in INSTRUCTIONS}
    rows = []
    pattern = (
        r"Compiling entry function '(\w+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads.*?"
        r"Used (\d+) registers(.*?)$"
    )
    for mangled, stores, loads, registers, rest in re.findall(pattern, assembled, re.DOTALL | re.MULTILINE):
        shared = re.search(r"(\d+) bytes smem", rest)
        rows.append(
            {
                "gpu": gpu,
                "kernel": readable(mangled),
                "registers": int(registers),
                "spill_bytes": int(stores) + int(loads),
                "shared_bytes": int(shared[1]) if shared else 0,
                "instructions": counts[mangled],
            }
        )
    return sorted(rows, key=lambda row: row["kernel"])


def readable(mangled: str) -> str:
    """`tensor_cores::forward<Half, 128>` from its mangled name."""
    full = run("c++filt", mangled).strip().removeprefix("void ")
    return full.partition("(")[0]


def run(*command: str) -> str:
    finished = subprocess.run(command, capture_output=True, text=True)
    if finished.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{finished.stdout}{finished.stderr}")
    return finished.stdout + finished.stderr


if __name__ == "__main__":
    sys.exit(main())
