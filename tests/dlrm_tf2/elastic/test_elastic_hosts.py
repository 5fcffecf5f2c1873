"""Which slots of which hosts may be used: the list of the user, without what was lost a short while ago."""

import pytest

from dlrm_tf2.elastic.hosts import Hosts, HostsError, hosts_of_script, is_this_machine, parse_hosts, unreachable


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def hosts_with(listed, clock, cooldown_s=(10, 40)):
    hosts = Hosts(lambda: listed, cooldown_s, clock=clock)
    hosts.update()
    return hosts


def test_a_lost_slot_comes_back_after_a_time_that_doubles(clock):
    hosts = hosts_with({"a": 3, "b": 2}, clock)
    for seconds in (10, 20, 40, 40):  # 40 is the most
        before = clock.now
        assert seconds <= hosts.lose("a", 1) <= min(40, 1.1 * seconds)
        assert hosts.slots() == {"a": 2, "b": 2}
        clock.now = before + seconds - 0.1
        assert hosts.slots() == {"a": 2, "b": 2}
        clock.now = before + 1.1 * seconds + 0.1
        assert hosts.slots() == {"a": 3, "b": 2}


def test_a_lost_host_is_left_out_and_the_most_ranks_are_counted_from_the_oldest_host_on(clock):
    listed = {"a": 3, "b": 2}
    hosts = hosts_with(listed, clock)
    assert hosts.slots(4) == {"a": 3, "b": 1}
    hosts.lose("a", 3)
    assert hosts.slots(4) == {"b": 2}
    listed["0"] = 5  # listed later, so it comes last
    hosts.update()
    assert list(hosts.slots(4).items()) == [("b", 2), ("0", 2)]


def test_a_host_that_the_list_has_left_out_comes_back_with_all_its_slots(clock):
    listed = {"a": 1, "b": 2}
    hosts = hosts_with(listed, clock)
    hosts.lose("b", 2)
    del listed["b"]
    hosts.update()
    listed["b"] = 2
    assert hosts.slots() == {"a": 1}
    hosts.update()
    assert hosts.slots() == {"a": 1, "b": 2}


def test_a_list_that_cannot_be_read_leaves_the_one_before(clock):
    listed = {"a": 1}
    hosts = Hosts(lambda: listed or parse_hosts(["?"], 1), (1, 1), clock=clock)
    hosts.update()
    listed.clear()
    with pytest.raises(HostsError):
        hosts.update()
    assert hosts.slots() == {"a": 1}


def test_a_script_prints_hosts_as_for_horovodrun():
    assert hosts_of_script("printf 'host-1:4\\nhost2\\n\\n10.0.0.3:2\\n'", 8) == {
        "host-1": 4,
        "host2": 8,
        "10.0.0.3": 2,
    }
    assert hosts_of_script("true", 8) == {}


@pytest.mark.parametrize("script, complaint", [
    ("echo no network >&2; exit 3", "exit status 3: no network"),
    ("echo a:b", "found 'a:b', expected a host and its slots such as host1:4"),
    ("echo a a:2", "a occurs twice"),
])  # fmt: skip
def test_a_script_that_fails_is_named(script, complaint):
    with pytest.raises(HostsError) as error:
        hosts_of_script(script, 1)
    assert str(error.value) == f"--host_discovery_script {script}: {complaint}"


def test_this_machine_is_reached_without_ssh_and_a_name_without_address_is_not():
    assert is_this_machine("localhost") and is_this_machine("127.0.0.1") and not is_this_machine("192.0.2.1")
    assert unreachable(["localhost", "no-such-host.invalid"]) == ["no-such-host.invalid"]
