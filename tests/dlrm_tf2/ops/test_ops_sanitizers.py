"""The CPU kernels under the address, undefined-behaviour and thread sanitizers: exact buffers, four threads at once."""

import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[3] / "dlrm_tf2" / "ops"


@pytest.mark.long
@pytest.mark.skipif(shutil.which("cmake") is None or shutil.which("g++") is None, reason="no cmake or g++")
@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_kernels_are_clean(tmp_path, sanitizer):
    configure = ["cmake", "-S", SOURCE, "-B", tmp_path, f"-DDLRM_SANITIZE={sanitizer}"]
    subprocess.run(configure, check=True, capture_output=True)
    subprocess.run(["cmake", "--build", tmp_path, "-j", "2"], check=True, capture_output=True)
    for program in ("check_cpu_kernels", "check_row_kernels", "check_key_index", "check_row_cache"):
        run = subprocess.run([tmp_path / program], capture_output=True, text=True)
        assert run.returncode == 0, run.stdout + run.stderr[-4000:]
        assert "cases agree" in run.stdout and run.stderr == ""
