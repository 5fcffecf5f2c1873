"""Data that the ranks cannot share evenly: every rank takes part in every step, with or without samples."""

import numpy as np
from support.small_dataset import write_dataset
from test_ranks import run

from dlrm_tf2.runtime.comm import SingleProcess


def test_a_last_batch_with_fewer_samples_than_ranks(tmp_path, run_ranks):
    """The third batch of 50 has 3 of 103 samples: two of five ranks have none. The second of 40 test samples has 1."""
    spec = write_dataset(tmp_path, train=103, test=41)
    flags = {"batch_size": 50, "valid_batch_size": 40, "max_steps": 6}
    losses, evaluation, *_ = run(tmp_path, spec, SingleProcess(), **flags)
    assert len(losses) == 6
    for rank in run_ranks(5, lambda comm: run(tmp_path, spec, comm, **flags)):
        if isinstance(rank, BaseException):
            raise rank
        np.testing.assert_allclose(rank[0], losses, rtol=1e-5)
        assert rank[1].num_samples == evaluation.num_samples == 41
