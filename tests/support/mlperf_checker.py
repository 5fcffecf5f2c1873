"""MLPerf's own checker of logs."""

import importlib.util
import logging

import pytest

needs_package = pytest.mark.skipif(
    importlib.util.find_spec("mlperf_logging") is None,
    reason="the package mlperf-logging is not installed: pip install 'criteo-dlrm[mlperf]'",
)


def complaints(path, ruleset):
    """What MLPerf's checker finds: the first lines of its messages."""
    from mlperf_logging.compliance_checker import mlp_compliance

    checker = mlp_compliance.make_checker("training", ruleset, quiet=False, werror=False)
    logging.disable(logging.CRITICAL)
    try:
        mlp_compliance.main(str(path), f"training_{ruleset}/common.yaml", checker)
    finally:
        logging.disable(logging.NOTSET)
    return [message.splitlines()[0] for message in (*checker.overwritable.values(), *checker.not_overwritable)]
