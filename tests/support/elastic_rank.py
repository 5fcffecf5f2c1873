"""A rank of an elastic job without a model, and a launcher of such ranks on this machine.

    elastic_rank.py launch -np N -H HOSTS env VARIABLE=... python elastic_rank.py rank SCENARIO FILE

SCENARIO is JSON, {start: {rank: what it does}}; a rank that it does not name waits for its end. Each rank appends a
line to FILE: [number of the start, rank, ranks, lost step of the restart].
"""

import json
import os
import signal
import subprocess
import sys
import time

from dlrm_tf2.runtime import elastic


def launch(words):
    size, command = int(words[1]), words[words.index("env") :]
    ranks = [
        subprocess.Popen(command, env={**os.environ, "RANK": str(rank), "SIZE": str(size)}) for rank in range(size)
    ]
    while any(rank.poll() is None for rank in ranks):
        if any(rank.poll() for rank in ranks):  # as launchers do: an exit status other than 0 ends all ranks
            time.sleep(0.4)
            for rank in ranks:
                rank.kill()
        time.sleep(0.05)
    return max(abs(rank.wait()) for rank in ranks)


def be_rank(scenario, file):
    rank, size = int(os.environ["RANK"]), int(os.environ["SIZE"])
    with elastic.supervised(True, rank) as link:
        start = link.restart.number if link.restart else 0
        with open(file, "a") as lines:
            lines.write(json.dumps([start, rank, size, link.restart and link.restart.lost_step]) + "\n")
        link.step_done(10 * start + 7, saved_step=10 * start + 5)
        what = json.loads(scenario).get(str(start), {}).get(str(rank), "waits")
        time.sleep(0.6)  # until the next report to the supervisor
        if what == "is killed":
            os.kill(os.getpid(), signal.SIGKILL)
        elif what == "is stopped":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif what == "fails":
            raise ValueError("the disk is full")
        elif what == "hangs":
            link.end_process("no progress for 600 s", False)  # as its watchdog does
        elif what == "misses a rank":
            link.end_process(f"rank {rank}: rank 3 on host3 is gone", True)  # likewise
        elif what == "makes room":
            while not link.hosts:
                time.sleep(0.05)
            raise elastic.HostsJoin(f"for {link.hosts}")
        elif what == "finishes":
            link.report(finished=True)
        elif what == "waits":
            time.sleep(60)


if __name__ == "__main__":
    if sys.argv[1] == "launch":
        sys.exit(launch(sys.argv[2:]))
    try:
        be_rank(*sys.argv[2:4])
    except ValueError as error:
        sys.exit(str(error))
