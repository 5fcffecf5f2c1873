"""Training on two hosts, by the speed of the link between them and by the way in which tables and ids are exchanged.

    python bench/hosts.py [--links 1gbit,10gbit] [--delays 0ms] [--ranks 2] [--transport mpi] [--rounds 3]

Two hosts on this machine (tests/support/hosts): each has a network interface of its own, whose rate the kernel limits.
They share the processors, so a rank has one thread. A job trains all ways in turn; times are medians over the rounds of
the slowest rank's mean step. Bytes are counted at the interface of the host that sends most, without the 66 bytes of
Ethernet, IP and TCP of each packet. The floor of an exchange is these bytes over the rate of the link. A delay is a
program that hands packets on and uses a processor; without a delay only the kernel limits the rate.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from host_models import MODEL_NAMES, WAYS, Size, Trained
from result_file import write_result

from dlrm_tf2.runtime import process
from dlrm_tf2.sharding.cost import Step, allreduce_bytes, cost_of

ROOT = Path(__file__).resolve().parent.parent
HEADER_BYTES = 14 + 20 + 32  # Ethernet; IPv4; TCP with time stamps
SIZES = {"dlrm": Size(4096, 0.01), "tiny": Size(8192, 0.01)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--links", default="1gbit,10gbit", help="rates of the links; 0bit for no limit")
    parser.add_argument("--delays", default="0ms", help="times from one host to the other, each with every rate")
    parser.add_argument("--ranks", type=int, default=2, help="ranks of both hosts together")
    parser.add_argument("--transport", choices=("mpi", "gloo"), default="mpi")
    parser.add_argument("--models", default=",".join(MODEL_NAMES))
    parser.add_argument("--steps", type=int, default=4, help="steps of a way in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", default=str(ROOT / "bench" / "results" / "hosts.json"))
    parser.add_argument("--measure", metavar="FILE", help=argparse.SUPPRESS)  # given to the ranks
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments)
        return
    from support.hosts import Hosts, unavailable

    if reason := unavailable():
        sys.exit(f"{parser.prog}: one host only: {reason}")
    found = []
    for rate in arguments.links.split(","):
        for delay in arguments.delays.split(","):
            with Hosts(2, rate=rate, delay=None if delay == "0ms" else delay) as hosts:
                models = job(hosts, arguments)
            bits = {"kbit": 1e3, "mbit": 1e6, "gbit": 1e9}.get(rate.lstrip("0123456789."), 0) * float(
                rate.rstrip("gmkbit")
            )
            found.append({"rate": rate, "delay": delay, "models": models})
            report(found[-1], bits)
    document = {"links": found, **{name: getattr(arguments, name) for name in ("ranks", "transport", "steps")}}
    write_result(arguments.json, document)


def job(hosts, arguments: argparse.Namespace) -> dict[str, list[dict]]:
    """What the ranks of a job on the hosts have measured, by model."""
    with tempfile.TemporaryDirectory(prefix="bench_hosts_") as folder:
        file = Path(folder) / "measured.json"
        command = [sys.executable, __file__, *sys.argv[1:], "--measure", str(file)]
        done = hosts[0].run([*hosts.horovodrun(arguments.ranks, arguments.transport), *command], timeout=900)
        if done.returncode:
            sys.exit(f"{' '.join(command)}\n{(done.stdout + done.stderr)[-4000:]}")
        return json.loads(file.read_text())


def report(link: dict, bits: float) -> None:
    """Prints the ways on one link, and adds their floors and ratios."""
    for name, ways in link["models"].items():
        print(f"{name}, {link['rate']}, delay {link['delay']}")
        print(
            f"  {'':42} {'samples/s':>10} {'ratio':>6} {'step ms':>8} {'exch ms':>8} {'floor':>6} {'ratio':>6} "
            f"{'MB sent':>8} {'plan':>8} {'ratio':>6}"
        )
        for way in ways:
            way["floor_ms"] = 8e3 * way["sent_bytes"] / bits if bits else None
            floor = way["floor_ms"] or 0
            print(
                f"  {way['way']:42} {way['samples_per_s']:10,.0f} {way['ratio']:6.2f} {way['step_ms']:8.1f} "
                f"{way['exchange_ms']:8.1f} {floor:6.1f} {way['exchange_ms'] / floor if floor else 0:6.2f} "
                f"{way['sent_bytes'] / 1e6:8.2f} {way['planned_bytes'] / 1e6:8.2f} "
                f"{way['sent_bytes'] / way['planned_bytes']:6.3f}"
            )


def measure(arguments: argparse.Namespace) -> None:
    """Measures all ways of all models, on every rank; rank 0 writes the file."""
    launch = process.Launch.detect()
    process.set_up_process(launch, cpu=True, amp=False, threads=process.Threads(1, 2))
    from dlrm_tf2.data.repeated_ids import Network
    from dlrm_tf2.runtime.comm import connect
    from dlrm_tf2.runtime.network import gbit_of_hosts

    comm, found = connect(launch.world_size), {}
    network = Network(gbit_of_hosts(comm) / comm.local_size, 1 - comm.local_size / comm.size)
    for name in arguments.models.split(","):
        trained = [Trained(name, SIZES[name], way, comm=comm, network=network) for way in WAYS]
        rounds = [[_round(one, arguments.steps, comm) for one in trained] for _ in range(arguments.rounds + 1)]
        found[name] = [
            _summary(arguments, name, number, one, [of_all[number] for of_all in rounds[1:]], comm)
            for number, one in enumerate(trained)
        ]
        for way in found[name]:
            way["measured_gbit"] = network.rank_gbit * comm.local_size
            way["ratio"] = way["samples_per_s"] / found[name][0]["samples_per_s"]
    if comm.rank == 0:
        Path(arguments.measure).write_text(json.dumps(found))


def _round(trained: Trained, steps: int, comm) -> dict:
    comm.allgather_object(None, name="barrier")
    sent, exchanged, start = _sent(), comm.exchange_seconds(), time.perf_counter()
    trained.run(steps)
    seconds = time.perf_counter() - start
    payload, packets = (new - old for new, old in zip(_sent(), sent, strict=True))
    own = {
        "step_ms": 1e3 * seconds / steps,
        "exchange_ms": 1e3 * (comm.exchange_seconds() - exchanged) / steps,
        "sent_bytes": (payload - HEADER_BYTES * packets) / steps,
        "packets": packets / steps,
    }
    ranks = comm.allgather_object(own, name="measured")
    return {name: max(of_rank[name] for of_rank in ranks) for name in own}


def _summary(arguments, name, number, trained, rounds, comm) -> dict:
    way, size = WAYS[number], SIZES[name]
    medians = {key: statistics.median(of_round[key] for of_round in rounds) for key in rounds[0]}
    step = Step(
        size.batch_size,
        trained.hotness,
        wire_bytes=2 if way.amp else 4,
        data_parallel_input=way.data_parallel_input,
        deduplicated=trained.deduplicated,
        different=trained.different,
        ranks_per_host=comm.local_size,
    )
    of_ranks = [cost.sent_bytes for cost in cost_of(trained.plan, trained.tables, step)]
    of_hosts = [sum(of_ranks[first : first + comm.local_size]) for first in range(0, comm.size, comm.local_size)]
    return {
        "way": way.flags,
        **medians,
        "all_ms": [of_round["step_ms"] for of_round in rounds],
        "samples_per_s": 1e3 * size.batch_size / medians["step_ms"],
        "planned_bytes": max(of_hosts) + allreduce_bytes(trained.dense_numbers, comm.size),
        "deduplicated": len(trained.deduplicated),
        "replicated": len(trained.plan.replicated),
    }


def _sent() -> tuple[int, int]:
    """Bytes and packets that the host has sent."""
    lines = Path("/proc/self/net/dev").read_text().splitlines()
    words = next(line.split() for line in lines if line.split()[0] == "eth0:")
    return int(words[9]), int(words[10])


if __name__ == "__main__":
    main()
