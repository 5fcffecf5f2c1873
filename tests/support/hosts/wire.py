"""A program between two network interfaces: it hands every packet of one to the other after a delay.

    python wire.py FIRST SECOND

It reads the two delays in seconds (first to second, second to first) from each line of stdin, answers `ready`, and ends
when stdin ends. Packets stay as large as the kernel makes them (up to 64 KiB), so that few pass through Python.
"""

import collections
import contextlib
import ctypes
import os
import select
import socket
import sys
import time

_SOL_PACKET, _VNET_HEADER, _IGNORE_OUTGOING = 263, 15, 23  # numbers of Linux, which Python does not name
_ETH_P_ALL, _SO_RCVBUFFORCE, _PR_SET_TIMERSLACK = 3, 33, 29
_LARGEST = 1 << 17
_OWN_TIME_S = 60e-6  # what this program, its sleep and a second program of this kind add to the delay of a packet


def main(first: str, second: str) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1)  # waits end on time, within microseconds
    with contextlib.suppress(OSError):  # not allowed in this container: the wire is slower where processors are busy
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))  # a cable waits for no processor
    ends = [_open(first), _open(second)]
    delays, waiting = [0.0, 0.0], [collections.deque(), collections.deque()]
    while True:
        due = min((queue[0][0] for queue in waiting if queue), default=None)
        patience = None if due is None else max(0.0, due - time.monotonic())
        readable, _, _ = select.select([*ends, sys.stdin.buffer.raw], [], [], patience)
        now = time.monotonic()
        for side in (0, 1):
            if ends[side] in readable:
                _receive(ends[side], waiting[side], due=now + max(0.0, delays[side] - _OWN_TIME_S))
            while waiting[side] and waiting[side][0][0] <= now:
                with contextlib.suppress(OSError):  # the interface is down, or its queue is full: the packet is lost
                    ends[1 - side].send(waiting[side].popleft()[1])
        if sys.stdin.buffer.raw in readable:
            line = sys.stdin.buffer.raw.readline()
            if not line:
                return
            delays = [float(word) for word in line.split()]
            print("ready", flush=True)


def _open(name: str) -> socket.socket:
    end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    end.setsockopt(_SOL_PACKET, _VNET_HEADER, 1)
    end.setsockopt(_SOL_PACKET, _IGNORE_OUTGOING, 1)
    end.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 26)
    end.bind((name, _ETH_P_ALL))
    end.setblocking(False)
    return end


def _receive(end: socket.socket, queue: collections.deque, *, due: float) -> None:
    with contextlib.suppress(OSError):  # no packet is left, or the interface is down
        while len(queue) < 100_000:
            queue.append((due, end.recv(_LARGEST)))


if __name__ == "__main__":
    main(*sys.argv[1:])
