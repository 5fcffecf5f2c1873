"""Which host a rank is on: the list's order, or where it connects from if the launcher used another order."""

import json
import socket

import pytest

from dlrm_tf2.elastic.ranks import Ranks, Welcome


@pytest.fixture
def hello():
    """`hello(ranks, rank, host)`: a rank connects from this machine, and says that its machine is called `host`."""
    connections = []

    def hello(ranks, rank, host):
        token, _, addresses = ranks.address(["127.0.0.1"]).split("@")
        connections.append(socket.create_connection(("127.0.0.1", int(addresses.split(":")[1]))))
        message = {"token": token, "rank": rank, "pid": 1000 + rank, "host": host}
        connections[-1].sendall(json.dumps(message).encode() + b"\n")
        while ranks.ranks[rank].pid is None:
            ranks.look(0.05)

    yield hello
    for connection in connections:
        connection.close()


@pytest.mark.parametrize(
    "listed, said, places",
    [
        (["a", "b", "c"], ["c", "a", "b"], ["c", "a", "b"]),  # mpirun begins with its own host
        (["a", "a", "b"], ["b", "a", "a"], ["b", "a", "a"]),
        (["a.example.org", "b"], ["b", "a"], ["b", "a.example.org"]),
        (["10.1.2.3", "localhost"], ["x", "y"], ["localhost", "10.1.2.3"]),  # by the address of the connection
        (["a", "b"], ["x", "y"], ["a", "b"]),  # nothing is known
    ],
)
def test_a_rank_is_on_the_host_that_it_connects_from(hello, listed, said, places):
    ranks = Ranks(listed, Welcome("run", None), silence_s=20)
    try:
        for rank, host in enumerate(said):
            hello(ranks, rank, host)
            assert sorted(one.host for one in ranks.ranks) == sorted(listed)
        assert [one.host for one in ranks.ranks] == places
    finally:
        ranks.close()
