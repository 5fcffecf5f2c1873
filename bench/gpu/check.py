"""The CUDA kernels on a real GPU: right? clean? fast? Needs nvcc and numpy, no TensorFlow; uses torch where it is.

    python bench/gpu/check.py [--output bench/gpu/check.json]

Builds the kernels for the GPU that is there (nvcc; or --library PATH), checks every kernel over a grid of shapes and
types with fresh random inputs (the dot interaction against float64, with poisoned outputs and guards; embedding rows
and the first values of keys against numpy, bit for bit; the hash table against a dict), runs compute-sanitizer's
memcheck and racecheck over a small grid where it is installed, and times with device events against a copy on the same
GPU; the dot interaction also against torch and JAX where they are installed. Prints tables, writes one JSON, and exits
1 on any wrong value.
"""

import argparse
import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import device as gpu
import index_check
import numpy as np
import rows_check
import times

GUARD = 256  # bytes around each output that must stay as they are
COUNTS, WIDTHS = (1, 2, 9, 11, 16, 17, 27, 32, 33, 101), (1, 8, 16, 24, 40, 56, 64, 127, 128, 160, 256)
TOLERANCE = {"float32": 2e-6, "float16": 2e-3, "bfloat16": 1.6e-2}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--library", help="a libdlrm_kernels.so with CUDA kernels, in place of building one")
    parser.add_argument("--output", default=str(Path(__file__).parent / "check.json"))
    parser.add_argument("--batch", type=int, default=65536, help="batch of the timings")
    parser.add_argument("--small_grid_only", action="store_true", help="what runs inside compute-sanitizer")
    arguments = parser.parse_args(argv)
    try:
        device = gpu.open_device()
        kernels = gpu.Kernels(arguments.library or gpu.compile_kernels())
    except (RuntimeError, OSError) as error:
        print(f"bench/gpu/check.py: {error}", file=sys.stderr)
        return 1
    print(f"{device.name}, {device.capability}, {device.library}")
    if arguments.small_grid_only:
        wrong = check_grid(device, kernels, small_grid())["wrong"]
        for part in (rows_check, index_check):
            wrong += part.check_grid(device, kernels, part.small_grid())["wrong"]
        return 1 if wrong else 0
    values = check_grid(device, kernels, grid())
    print(f"values: {values['checked']} checks, {len(values['wrong'])} wrong")
    row_values = rows_check.check_grid(device, kernels, rows_check.grid())
    print(f"embedding rows: {row_values['checked']} checks, {len(row_values['wrong'])} wrong")
    index_values = index_check.check_grid(device, kernels, index_check.grid())
    print(f"hash table: {index_values['checked']} checks, {len(index_values['wrong'])} wrong")
    sanitizer = {tool: sanitize(tool, kernels.path) for tool in ("memcheck", "racecheck")}
    for tool, verdict in sanitizer.items():
        print(f"compute-sanitizer {tool}: {verdict}")
    row_times = rows_check.measure(device, kernels, arguments.batch)
    index_times = index_check.measure(device, kernels)
    timed = times.measure(device, kernels, arguments.batch)
    document = {
        "device": device.name,
        "capability": device.capability,
        "library": device.library,
        "command": " ".join(["python", "bench/gpu/check.py", *(sys.argv[1:] if argv is None else argv)]),
        "values": values,
        "sanitizer": sanitizer,
        "times": timed,
        "row_values": row_values,
        "row_times": row_times,
        "index_values": index_values,
        "index_times": index_times,
    }
    Path(arguments.output).write_text(json.dumps(document, indent=1) + "\n")
    clean = all(verdict.startswith(("clean", "not run")) for verdict in sanitizer.values())
    return 0 if clean and not values["wrong"] + row_values["wrong"] + index_values["wrong"] else 1


def grid():
    """(shape, dtype, kernel, bytes of misalignment)"""
    for count, width, dtype in itertools.product(COUNTS, WIDTHS, gpu.DTYPES):
        for kernel in ("general", "tensor"):
            yield (5, count, width), dtype, kernel, 0
    for dtype in gpu.DTYPES:
        yield (0, 27, 128), dtype, "best", 0
        yield (1, 27, 128), dtype, "best", 0
        yield (4099, 27, 128), dtype, "best", 0
        yield (7, 27, 128), dtype, "best", gpu.ITEM_BYTES[dtype]  # an address that no vector load may use
        yield (3, 20, 2000), dtype, "best", 0  # more shared memory than 48 KB
        yield (2, 300, 500), dtype, "best", 0  # columns in chunks


def small_grid():
    for count, width, dtype in itertools.product((1, 16, 27, 33), (8, 127, 128), gpu.DTYPES):
        for kernel in ("general", "tensor"):
            yield (5, count, width), dtype, kernel, 0


def check_grid(device, kernels: gpu.Kernels, cases) -> dict:
    """Checks each case. Returns the number of checks and a line for every wrong one."""
    rng = np.random.default_rng()  # fresh inputs on every run; a wrong value does not depend on a lucky seed
    checked, wrong = 0, []
    for shape, dtype, kernel, misaligned in cases:
        complaint = check(device, kernels, rng, shape, dtype, kernel, misaligned)
        if complaint == "not served":
            continue
        checked += 2
        if complaint:
            wrong.append(f"{shape} {dtype} {kernel} +{misaligned}: {complaint}")
            print(f"WRONG {wrong[-1]}")
    return {"checked": checked, "wrong": wrong}


def check(device, kernels, rng, shape, dtype, kernel, misaligned) -> str | None:
    """None, "not served", or what is wrong."""
    batch, count, width = shape
    item, out_shape = gpu.ITEM_BYTES[dtype], (batch, gpu.output_width(count, width))
    features, upstream = (stored(rng.normal(size=size), dtype) for size in (shape, out_shape))
    on_device = [
        device.upload(
            np.concatenate([np.zeros(misaligned, np.uint8), values.view(np.uint8).reshape(-1), np.zeros(16, np.uint8)])
        )
        for values in (features, upstream)
    ]
    x, up = (device.address(memory) + misaligned for memory in on_device)
    results = []
    for size, call in (
        (out_shape, lambda to: kernels.forward(x, to, shape, dtype, kernel)),
        (shape, lambda to: kernels.gradient(x, up, to, shape, dtype, kernel)),
    ):
        num_bytes = int(np.prod(size)) * item
        memory = device.poisoned(num_bytes + 2 * GUARD + misaligned)
        if not call(device.address(memory) + GUARD + misaligned):
            return "not served"
        device.wait()
        found = device.download(memory)
        start = GUARD + misaligned
        if (found[:start] != 0xFF).any() or (found[start + num_bytes :] != 0xFF).any():
            return "bytes outside of the output were written"
        results.append(widened(found[start : start + num_bytes].copy(), dtype).reshape(size))
    exact, exact_up = widened(features, dtype).reshape(shape), widened(upstream, dtype).reshape(out_shape)
    return wrong_by(results[0], forward(exact), dtype, width, "forward") or wrong_by(
        results[1], gradient(exact, exact_up), dtype, count, "gradient"
    )


def wrong_by(found, expected, dtype, num_terms, what) -> str | None:
    tolerance = TOLERANCE[dtype]
    error = np.abs(found - expected) - tolerance * np.abs(expected) - 2e-6 * num_terms - 1e-7
    bad = ~(error <= 0)  # NaN counts
    if not bad.any():
        return None
    first = tuple(int(i) for i in np.argwhere(bad)[0])
    return f"{what}: {bad.sum()} of {bad.size} values, first at {first}: {found[first]}, expected {expected[first]}"


def forward(features: np.ndarray) -> np.ndarray:
    """float64: row 0, the dots of pairs i > j row-major, zeros to a multiple of 8."""
    count, width = features.shape[1:]
    rows, columns = np.tril_indices(count, -1)
    output = np.zeros((len(features), gpu.output_width(count, width)))
    output[:, :width] = features[:, 0]
    output[:, width : width + len(rows)] = np.matmul(features, features.transpose(0, 2, 1))[:, rows, columns]
    return output


def gradient(features: np.ndarray, upstream: np.ndarray) -> np.ndarray:
    batch, count, width = features.shape
    rows, columns = np.tril_indices(count, -1)
    symmetric = np.zeros((batch, count, count))
    symmetric[:, rows, columns] = symmetric[:, columns, rows] = upstream[:, width : width + len(rows)]
    result = np.matmul(symmetric, features)
    result[:, 0] += upstream[:, :width]
    return result


def stored(values: np.ndarray, dtype: str) -> np.ndarray:
    if dtype != "bfloat16":
        return np.ascontiguousarray(values, dtype)
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def widened(memory: np.ndarray, dtype: str) -> np.ndarray:
    if dtype != "bfloat16":
        return memory.view(dtype).astype(np.float64)
    with np.errstate(invalid="ignore"):
        return (memory.view(np.uint16).astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def sanitize(tool: str, library: Path) -> str:
    """Runs the small grid inside compute-sanitizer: "clean", "not run: why", or the last lines it said."""
    program = shutil.which("compute-sanitizer") or shutil.which("/usr/local/cuda/bin/compute-sanitizer")
    if program is None:
        return "not run: compute-sanitizer is not installed"
    command = [
        program,
        "--tool",
        tool,
        "--error-exitcode",
        "9",
        sys.executable,
        __file__,
        "--small_grid_only",
        "--library",
        str(library),
    ]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    except subprocess.TimeoutExpired:
        return "not run: no end within 300 s"
    if run.returncode == 0:
        return "clean"
    return f"exit code {run.returncode}: " + " | ".join((run.stdout + run.stderr).splitlines()[-5:])


if __name__ == "__main__":
    sys.exit(main())
