"""Remote files as files of Python, against the same bytes in memory, from a store that fails at random."""

import io
import random
import threading

import pytest

from criteo_prep.preprocess.remote import fetch, read_ahead
from criteo_prep.preprocess.remote.errors import RefusedError, RemoteError
from criteo_prep.preprocess.remote.fetch import Fetcher
from criteo_prep.preprocess.remote.read_ahead import InOrder, SeveralPlaces
from criteo_prep.preprocess.remote.remote_file import remote_file

FILE = remote_file("https://host/day_0?HUSH")


class Store:
    """Bytes in memory. `fails` says whether a call fails; a call that does not may return fewer bytes."""

    def __init__(self, data, fails=lambda number: False, shorter=None):
        self.data, self.size, self.fails, self.shorter = data, len(data), fails, shorter
        self.asked, self._lock = [], threading.Lock()

    def read_range(self, start, count):
        with self._lock:
            self.asked.append((start, count))
            number = len(self.asked)
        if self.fails(number):
            raise OSError("connection reset")
        return self.data[start : start + (self.shorter(count) if self.shorter else count)]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(fetch, "FIRST_WAIT_S", 0.0001)
    monkeypatch.setattr(fetch, "LEAST_BYTES", 4)
    monkeypatch.setattr(read_ahead, "FIRST_BYTES", 8)
    monkeypatch.setattr(read_ahead, "RANGE_BYTES", 64)
    monkeypatch.setattr(read_ahead, "_SHORTEST_AHEAD", 8)
    monkeypatch.setattr(read_ahead, "_LONGEST_AHEAD", 32)
    monkeypatch.setattr(read_ahead, "_MOST_RANGES", 3)


@pytest.mark.parametrize("kind", [InOrder, SeveralPlaces])
@pytest.mark.parametrize("seed", range(10))
def test_any_reads_give_the_bytes_of_the_file(kind, seed):
    source = random.Random(seed)
    data = source.randbytes(source.randrange(3000))
    store = Store(data, lambda number: source.random() < 0.05, lambda count: source.randint(1, count))
    twin = io.BytesIO(data)
    with io.BufferedReader(kind(Fetcher(FILE, store)), 16) as file:
        for _ in range(60):
            act = source.choice(["read", "read", "read", "readinto", "seek", "end"])
            count = source.randrange(300)
            if act == "read":
                assert file.read(count) == twin.read(count)
            elif act == "readinto":
                one, other = bytearray(count), bytearray(count)
                assert file.readinto(one) == twin.readinto(other) and one == other
            else:
                where = source.randrange(len(data) + 20)
                place = (where, 0) if act == "seek" else (-min(where, len(data)), 2)
                assert file.seek(*place) == twin.seek(*place)
            assert file.tell() == twin.tell()
        file.seek(0)
        assert file.read() == data


def test_a_look_at_the_beginning_costs_one_short_range():
    store = Store(bytes(10_000))
    with InOrder(Fetcher(FILE, store)) as file:
        file.read(4)
    assert store.asked == [(0, 8)]


def test_ranges_become_longer_and_no_more_than_ahead_are_asked_for():
    store = Store(bytes(10_000))
    with InOrder(Fetcher(FILE, store)) as file:
        for _ in range(30):
            file.read(64)
            asked = max(start + count for start, count in store.asked)
            assert asked - file.tell() <= 64 * (fetch.AHEAD + 1)
    assert sorted(store.asked)[:5] == [(0, 8), (8, 32), (40, 64), (104, 64), (168, 64)]


def test_a_failed_range_continues_at_its_byte():
    data = bytes(range(200))
    store = Store(data, lambda number: number in (2, 3), lambda count: min(count, 50))
    assert Fetcher(FILE, store).fetch(10, 100) == data[10:110]
    assert store.asked == [(10, 100), (60, 50), (60, 25), (60, 6), (66, 12), (78, 24), (102, 8)]


def test_the_last_attempt_says_file_byte_attempts_and_cause():
    store = Store(bytes(1000), lambda number: number > 1)
    with pytest.raises(RemoteError) as error, InOrder(Fetcher(FILE, store)) as file:
        file.read(8)
        file.read(100)
    assert str(error.value).startswith(
        "https://host/day_0: could not be read at byte 8 in 5 attempts: connection reset."
    )
    assert error.value.errno and "HUSH" not in str(error.value)
    assert sum(start == 8 for start, _ in store.asked) == 5


def test_what_is_final_is_not_tried_again():
    def refuse(number):
        raise RefusedError("no")

    store = Store(bytes(10), refuse)
    with pytest.raises(RefusedError):
        Fetcher(FILE, store).fetch(0, 10)
    assert len(store.asked) == 1


def test_a_file_that_has_become_shorter():
    store = Store(bytes(10))
    with pytest.raises(RemoteError, match="at byte 10 in 5 attempts: the answer has no bytes"):
        Fetcher(FILE, store).fetch(0, 20)


def test_the_ranges_behind_several_places_are_used():
    store = Store(random.Random(1).randbytes(4000))
    with SeveralPlaces(Fetcher(FILE, store)) as file:
        for round_ in range(3):  # two columns in turn
            for column in (0, 2000):
                file.seek(column + 32 * round_)
                assert file.read(32) == store.data[column + 32 * round_ :][:32]
    assert sorted(store.asked) == sorted((column + 32 * n, 32) for column in (0, 2000) for n in range(4))
