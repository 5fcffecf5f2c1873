"""Several hosts on one machine, for tests and benchmarks of jobs on several machines.

with Hosts(2, rate="1gbit", delay="0.1ms") as hosts:
    hosts[0].run([*hosts.horovodrun(ranks=2, transport="gloo"), sys.executable, "-m", "dlrm_tf2.dlrm", ...])
    hosts.link(1).cut()
"""

from support.hosts.network import Hosts, unavailable

__all__ = ["Hosts", "unavailable"]
