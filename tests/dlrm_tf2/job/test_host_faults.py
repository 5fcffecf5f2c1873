"""Faults of jobs on two hosts: the job goes on, or ends as a whole with the reason, and the same command resumes it.

bench/faults_hosts.py runs the same faults, with figures.
"""

import pytest
from support.host_faults import FAULTS, run_fault
from support.hosts import unavailable
from support.programs import needs_horovod

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(900),
    needs_horovod,
    pytest.mark.skipif(bool(unavailable()), reason=f"one host only: {unavailable()}"),
]


@pytest.mark.parametrize("launcher", ["mpi", "gloo"])
@pytest.mark.parametrize("name", FAULTS)
def test_fault(name, launcher, tmp_path):
    outcome = run_fault(FAULTS[name], launcher, tmp_path)
    assert not outcome.wrong(FAULTS[name]), outcome.end.output[-4000:]


def test_a_link_of_one_of_three_hosts_is_down(tmp_path):
    outcome = run_fault(FAULTS["a link is down"], "mpi", tmp_path, hosts=3)
    assert not outcome.wrong(FAULTS["a link is down"]), outcome.end.output[-4000:]
    assert "rank 2 on host2" in outcome.said
