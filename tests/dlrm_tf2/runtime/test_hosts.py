"""The hosts that tests and benchmarks play on one machine: they are apart, they can be hurt, and they leave nothing."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.hosts import Hosts, unavailable

pytestmark = pytest.mark.skipif(bool(unavailable()), reason=f"no hosts to play with: {unavailable()}")

TESTS = Path(__file__).resolve().parents[2]
SSH = ["ssh", "-o", "ConnectTimeout=1"]
OWNER = """
import json, os, time
from support.hosts import Hosts
with Hosts(2, delay="1ms") as hosts:
    hosts[1].start(["sleep", "1000"])
    print(json.dumps([os.stat(f"/proc/{host.pid}/ns/net").st_ino for host in hosts]), flush=True)
    time.sleep(1000)
"""


@pytest.fixture
def hosts():
    with Hosts(2) as hosts:
        yield hosts


def name_over_ssh(hosts, source, target):
    """What `ssh` from one host to another prints, "" if there is no connection."""
    return hosts[source].run([*SSH, f"host{target}", "hostname"]).stdout.strip()


def processes_in(networks):
    """The processes of this machine whose network namespace is one of these inodes."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            found += [process.name] if os.stat(process / "ns/net").st_ino in networks else []
        except OSError:
            pass  # it has ended
    return found


def networks_of(hosts):
    return [os.stat(f"/proc/{host.pid}/ns/net").st_ino for host in hosts]


def test_hosts_find_each_other_by_name_and_two_groups_do_not_meet(hosts):
    with Hosts(3) as others:
        assert [name_over_ssh(others, 0, 2), name_over_ssh(others, 2, 1)] == ["host2", "host1"]
        assert hosts[0].run(["getent", "hosts", "host2"]).returncode == 2  # this group has two hosts
        hosts[1].stop_sshd()
        assert [name_over_ssh(hosts, 0, 1), name_over_ssh(others, 0, 1)] == ["", "host1"]
    assert name_over_ssh(hosts, 1, 0) == "host0"
    hosts[1].start_sshd()
    assert name_over_ssh(hosts, 0, 1) == "host1"


@pytest.mark.parametrize("delay", ["0ms", "1ms"])  # with a delay, a program hands the packets on
def test_a_link_is_cut_and_restored(hosts, delay):
    hosts.link(1).shape(delay=delay)
    assert name_over_ssh(hosts, 0, 1) == "host1"
    hosts.link(1).cut()
    assert [name_over_ssh(hosts, 0, 1), name_over_ssh(hosts, 1, 1)] == ["", "host1"]
    hosts.link(1).restore()
    assert name_over_ssh(hosts, 0, 1) == "host1"


def test_a_link_delays_limits_and_counts(hosts):
    connect = "import socket, time; a = time.monotonic(); socket.create_connection(('host1', 22)); "
    connect += "print(time.monotonic() - a)"
    hosts.link(0).shape("out", delay="150ms")
    hosts.link(1).shape("out", delay="50ms")
    assert float(hosts[0].check([sys.executable, "-S", "-c", connect])) >= 0.19
    hosts.link(0).shape("out", delay="0ms", rate="20mbit")
    before = hosts.link(0).sent_bytes, hosts.link(1).received_bytes, hosts.link(1).sent_bytes
    hosts[0].check(["bash", "-c", "head -c 1000000 /dev/zero | ssh host1 'cat > /dev/null'"])
    after = hosts.link(0).sent_bytes, hosts.link(1).received_bytes, hosts.link(1).sent_bytes
    sent, received, answered = (new - old for new, old in zip(after, before, strict=True))
    assert 1_000_000 < sent < 1_300_000 and 1_000_000 < received < 1_300_000 and answered < 200_000
    queue = json.loads(hosts[0].check("tc -s -json qdisc show dev eth0 root".split()))[0]
    assert queue["options"]["rate"] == 20e6 / 8 and queue["overlimits"] > 0  # the limit has held packets back


def test_a_link_loses_packets_in_one_direction(hosts):
    """Of 1000 datagrams to a closed port, about half arrive."""
    send = "import socket; s = socket.socket(2, 2); [s.sendto(b'x', ('10.0.0.%d', 9)) for _ in range(1000)]"
    count = "grep Udp: /proc/net/snmp | tail -1 | cut -d ' ' -f 3"  # datagrams without a receiver
    assert name_over_ssh(hosts, 0, 1) == "host1"  # now the hosts know each other's addresses, and queue no datagram
    hosts.link(0).shape("out", loss="50%")
    hosts[0].check([sys.executable, "-S", "-c", send % 2])
    hosts[1].check([sys.executable, "-S", "-c", send % 1])
    arrived = [int(hosts[index].check(["bash", "-c", count])) for index in (0, 1)]
    assert arrived[0] == 1000 and 350 < arrived[1] < 650
    hosts.link(0).shape("in", loss="100%")
    assert name_over_ssh(hosts, 1, 0) == ""


def test_a_folder_and_a_full_disk_of_one_host(hosts, tmp_path):
    (tmp_path / "shared").write_text("of the machine")
    hosts[1].private_folder(tmp_path, "1m")
    fill = hosts[1].run(["dd", "if=/dev/zero", f"of={tmp_path}/large", "bs=64k", "count=32"])
    assert fill.returncode == 1 and "No space left on device" in fill.stderr
    assert hosts[1].check(["ls", tmp_path]) == "large\n" and hosts[0].check(["ls", tmp_path]) == "shared\n"
    assert hosts[0].check(["ssh", "host1", "ls", str(tmp_path)]) == "large\n"
    assert hosts[1].seen(tmp_path / "large").stat().st_size == 1 << 20


@pytest.mark.skipif(not shutil.which("gcc"), reason="the clock of a host needs gcc")
def test_the_clock_of_one_host(hosts):
    """A day behind: a wait that ended by that clock would end never, or at once."""
    day_s, tolerance_s = 24 * 60 * 60, 60 * 60
    waits = "import time, threading; a = time.monotonic(); time.sleep(0.05); threading.Event().wait(0.05); "
    waits += "threading.Lock().acquire() and print(time.monotonic() - a >= 0.1)"
    hosts[1].set_clock(-day_s)
    dates = [int(text) for text in (hosts[1].check(["date", "+%s"]), hosts[0].check(["ssh", "host1", "date", "+%s"]))]
    assert dates == pytest.approx([time.time() - day_s] * 2, abs=tolerance_s)
    assert int(hosts[0].check(["date", "+%s"])) == pytest.approx(time.time(), abs=tolerance_s)
    assert hosts[1].check([sys.executable, "-S", "-c", waits], timeout=60) == "True\n"


def test_processes_are_signalled_and_killed_and_a_host_loses_power(hosts):
    first = hosts[1].start(["bash", "-c", "trap 'echo asked; exit 3' TERM; echo up; while :; do sleep 0.01; done"])
    assert first.stdout.readline() == "up\n"
    first.terminate()
    assert first.communicate() == ("asked\n", "") and first.returncode == 3
    with pytest.raises(subprocess.TimeoutExpired):
        hosts[0].run(["bash", "-c", "sleep 1000 & wait"], timeout=0.2)

    there, here = hosts[1].start(["sleep", "1000"]), hosts[0].start(["sleep", "1000"])
    hosts[1].kill_processes()
    assert there.wait() == -signal.SIGKILL and here.poll() is None
    assert name_over_ssh(hosts, 0, 1) == ""
    hosts[1].start_sshd()
    assert name_over_ssh(hosts, 0, 1) == "host1"

    hosts.link(1).shape(rate="30mbit", delay="1ms")
    hosts[1].power_off()
    assert name_over_ssh(hosts, 0, 1) == "" and here.poll() is None
    hosts[1].power_on()
    assert [name_over_ssh(hosts, 0, 1), name_over_ssh(hosts, 1, 0)] == ["host1", "host0"]
    assert "rate 30Mbit" in hosts[1].check("tc qdisc show dev eth0".split())


def test_nothing_stays_after_the_end():
    with pytest.raises(ZeroDivisionError), Hosts(2, delay="1ms") as hosts:
        networks = networks_of(hosts)
        sleeper = hosts[0].start(["sleep", "1000"])
        assert len(processes_in(networks)) >= 2 * 2 + 1  # unshare and its first process each, and the sleeper
        raise ZeroDivisionError
    assert sleeper.wait() == -signal.SIGKILL
    assert processes_in(networks) == []


def test_nothing_stays_after_the_owner_is_killed():
    owner = subprocess.Popen([sys.executable, "-c", OWNER], cwd=TESTS, stdout=subprocess.PIPE)
    networks = json.loads(owner.stdout.readline())
    assert processes_in(networks)
    owner.kill()
    owner.communicate()
    deadline = time.monotonic() + 30
    while processes_in(networks) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes_in(networks) == []
