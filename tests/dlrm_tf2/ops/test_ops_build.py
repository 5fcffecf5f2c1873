"""The build of the op library where something is missing: one line says what, nothing fails, nothing is lost."""

import importlib.util
import os
import stat
from pathlib import Path

BUILD = Path(__file__).parents[3] / "dlrm_tf2" / "ops" / "build.py"


def load():
    spec = importlib.util.spec_from_file_location("build_ops", BUILD)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def put_tools(folder, **scripts):
    """Commands that do what their shell script says."""
    for name, script in scripts.items():
        path = folder / name.replace("gxx", "g++")
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_missing_tools_are_named(tmp_path, monkeypatch):
    put_tools(tmp_path, make="exit 0")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert load().build(tmp_path / "lib") == "cmake, g++ not found"
    assert not (tmp_path / "lib").exists()


def test_a_compiler_that_fails_leaves_the_old_library(tmp_path, monkeypatch):
    library = tmp_path / "lib" / "libdlrm_ops.so"
    library.parent.mkdir()
    library.write_bytes(b"the old one")
    put_tools(tmp_path, make="exit 0", gxx="exit 0", cmake='echo "CMake Error: no such thing"; exit 1')
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin")
    why = load().build(tmp_path / "lib", tmp_path / "log.txt")
    assert why == "`cmake -G` failed: CMake Error: no such thing"
    assert library.read_bytes() == b"the old one"
    # Tried with the CUDA kernels and without them.
    assert (tmp_path / "log.txt").read_text().count("CMake Error") == 2


def test_without_the_cuda_compiler_the_cpu_library_is_built(tmp_path, monkeypatch):
    cmake = """case "$*" in
  *DLRM_CUDA_KERNELS=ON*) echo "nvcc error"; exit 1 ;;
  *--install*) for last; do :; done; mkdir -p "$last"; echo new >"$last/libdlrm_ops.so" ;;
esac"""
    put_tools(tmp_path, make="exit 0", gxx="exit 0", cmake=cmake)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin")
    assert load().build(tmp_path / "lib") is None
    assert (tmp_path / "lib" / "libdlrm_ops.so").read_text() == "new\n"
