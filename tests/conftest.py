"""For all tests: the instruction set that DLRM_TF2_CPU asks for, and the summary's line on those that are missing."""

import pytest
from hypothesis import settings

from dlrm_tf2.runtime import instruction_sets, process

_EMULATED, _DEPENDS_ON_THE_PROCESSOR = "test_ops_avx512_emulated.py", ("test_ops_", "test_instruction_sets.py")


settings.register_profile("no deadline", deadline=None)  # no test depends on the speed of the machine
settings.load_profile("no deadline")


def pytest_configure(config):
    try:
        process.force_instruction_set()
    except ValueError as error:
        raise pytest.UsageError(str(error)) from error


def pytest_terminal_summary(terminalreporter):
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    run = {report.nodeid for report in reports if getattr(report, "when", None) == "call"}
    missing = instruction_sets.NAMES[len(instruction_sets.of_processor()) :]
    if missing and any(word in test for test in run for word in _DEPENDS_ON_THE_PROCESSOR):
        emulated = [name for name in missing if any(_EMULATED in test and test.endswith(f"-{name}]") for test in run)]
        left = [name for name in missing if name not in emulated]
        if emulated:
            terminalreporter.write_line(f"not on this processor: {', '.join(emulated)} (run through the emulator)")
        if left:
            terminalreporter.write_line(f"not on this processor: {', '.join(left)} (not tested)")
