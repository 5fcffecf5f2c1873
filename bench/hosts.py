"""Training on two hosts, by the speed of the link between them and by the way in which tables and ids are exchanged.

    python bench/hosts.py [--links 1gbit,10gbit] [--delays 0ms] [--ranks 2] [--transport mpi] [--rounds 3]

Two hosts on this machine (tests/support/hosts): each has a network interface of its own, whose rate the kernel limits.
They share the processors, so a rank has one thread. A job trains all ways in turn; times are medians over the rounds of
the slowest rank's mean step. Bytes are counted at the interface of the host that sends most, without the 66 bytes of
Ethernet, IP and TCP of each packet. The floor of an exchange is these bytes over the rate of the link. A delay is a
program that hands packets on and uses a processor; without a delay only the kernel limits the rate.
"""

import argparse
import functools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from host_models import MODEL_NAMES, WAYS, Size, Trained, Way
from result_file import write_result

from dlrm_tf2.runtime import process
from dlrm_tf2.sharding.cost import Step, allreduce_bytes, cost_of

ROOT = Path(__file__).resolve().parent.parent
NO_DELAY = "0ms"
HEADER_BYTES = 14 + 20 + 32  # Ethernet; IPv4; TCP with time stamps
SIZES = {"dlrm": Size(4096, 0.01), "tiny": Size(8192, 0.01)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--links", default="0bit,1gbit,10gbit", help="rates of the links; 0bit for no limit")
    parser.add_argument("--delays", default=NO_DELAY, help="times from one host to the other, each with every rate")
    parser.add_argument("--ranks", type=int, default=2, help="ranks of both hosts together")
    parser.add_argument("--transport", choices=("mpi", "gloo"), default="mpi")
    parser.add_argument("--models", default=",".join(MODEL_NAMES))
    parser.add_argument("--ways", default="0,1,2,3,4,5,6,7", help="numbers of the ways of bench/host_models.py")
    parser.add_argument("--steps", type=int, default=2, help="steps of a way in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", default=str(ROOT / "bench" / "results" / "hosts.json"))
    parser.add_argument("--measure", metavar="FILE", help=argparse.SUPPRESS)  # given to the ranks
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments)
        return
    from support.hosts import unavailable

    if reason := unavailable():
        sys.exit(f"{parser.prog}: one host only: {reason}")
    links = [(rate, delay) for rate in arguments.links.split(",") for delay in arguments.delays.split(",")]
    found = []
    for (rate, delay), models in zip(links, measured(links, arguments), strict=True):
        found.append({"rate": rate, "delay": delay, "models": models})
        report(found[-1])
    document = {
        "links": found,
        **{name: getattr(arguments, name) for name in ("ranks", "transport", "steps", "rounds")},
    }
    write_result(arguments.json, document)


def measured(links: list[tuple[str, str]], arguments: argparse.Namespace) -> list[dict[str, list[dict]]]:
    """What the ranks of one job on the hosts have measured: for each link, the ways of each model."""
    from support.hosts import Hosts

    with tempfile.TemporaryDirectory(prefix="bench_hosts_") as folder, Hosts(2) as hosts:
        file = Path(folder) / "measured.json"
        command = [sys.executable, __file__, *sys.argv[1:], "--measure", str(file)]
        job = hosts[0].start([*hosts.horovodrun(arguments.ranks, arguments.transport), *command])
        for number in range(len(links) * len(arguments.models.split(","))):
            while not Path(f"{file}.{number}").exists() and job.poll() is None:
                time.sleep(0.05)
            rate, delay = links[number % len(links)]
            for index in range(len(hosts)):
                hosts.link(index).shape(rate=rate)
                if any(one != NO_DELAY for _, one in links):
                    hosts.link(index).shape("out", delay=delay)
            Path(f"{file}.{number}").unlink(missing_ok=True)
        stdout, stderr = job.communicate()
        if job.returncode:
            sys.exit(f"{' '.join(command)}\n{(stdout + stderr)[-4000:]}")
        return json.loads(file.read_text())


def report(link: dict) -> None:
    """Prints the ways on one link, and adds their floors and ratios."""
    number, unit = float(link["rate"].rstrip("gmbit")), link["rate"].lstrip("0123456789.")
    bits = number * {"gbit": 1e9, "mbit": 1e6, "bit": 1}[unit]
    for name, ways in link["models"].items():
        print(f"{name}, {link['rate']}, delay {link['delay']}, measured {ways[0]['measured_gbit']:.2f} Gbit/s")
        print(
            f"  {'':38} {'samples/s':>9} {'ratio':>5} {'step ms':>7} {'exchange':>8} {'floor':>6} {'ratio':>5} "
            f"{'MB sent':>7} {'sent / plan':>11}"
        )
        for way in ways:
            way["ratio"] = way["samples_per_s"] / ways[0]["samples_per_s"]
            way["floor_ms"] = 8e3 * way["sent_bytes"] / bits if bits else None
            way["exchange_ratio"] = way["exchange_ms"] / way["floor_ms"] if bits else None
            floor = f"{way['floor_ms']:6.1f} {way['exchange_ratio']:5.2f}" if bits else f"{'-':>6} {'-':>5}"
            print(
                f"  {way['way']:38} {way['samples_per_s']:9,.0f} {way['ratio']:5.2f} {way['step_ms']:7.1f} "
                f"{way['exchange_ms']:8.1f} {floor} {way['sent_bytes'] / 1e6:7.2f} "
                f"{way['sent_bytes'] / way['planned_bytes']:11.3f}"
                + (f"  {way['deduplicated']} features" if "auto" in way["way"] else "")
            )


def measure(arguments: argparse.Namespace) -> None:
    """Measures all ways of all models on all links, on every rank; rank 0 writes the file."""
    launch = process.Launch.detect()
    process.set_up_process(launch, cpu=True, amp=False, threads=process.Threads(1, 2))
    from dlrm_tf2.data.repeated_ids import Network
    from dlrm_tf2.runtime.comm import connect
    from dlrm_tf2.runtime.network import gbit_of_hosts

    comm, transport = connect(launch.world_size), arguments.transport
    ways = [WAYS[int(number)] for number in arguments.ways.split(",")]
    links = [{} for _ in arguments.links.split(",") for _ in arguments.delays.split(",")]
    number = 0
    for name in arguments.models.split(","):
        make = functools.partial(Trained, name, SIZES[name], comm=comm)
        trained = [None if way.dedup_ids == "auto" else make(way, network=None) for way in ways]
        for link in links:
            _next_link(Path(f"{arguments.measure}.{number}"), comm)
            number += 1
            gbit = gbit_of_hosts(comm)
            network = Network(gbit / comm.local_size, 1 - comm.local_size / comm.size)
            now = [one or make(way, network=network) for one, way in zip(trained, ways, strict=True)]
            for one in now:
                one.run(1)
            rounds = [[_round(one, arguments.steps, comm) for one in now] for _ in range(arguments.rounds)]
            summary = functools.partial(_summary, comm=comm, transport=transport)
            link[name] = [
                {"measured_gbit": gbit, **summary(way, SIZES[name], one, rounds=of_way)}
                for way, one, of_way in zip(ways, now, zip(*rounds, strict=True), strict=True)
            ]
    if comm.rank == 0:
        Path(arguments.measure).write_text(json.dumps(links))


def _next_link(file: Path, comm) -> None:
    """Waits until the links are changed: the file is made here, and removed then."""
    if comm.rank == 0:
        file.touch()
        while file.exists():
            time.sleep(0.05)
    comm.allgather_object(None, name="link")


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


def _summary(way: Way, size: Size, trained: Trained, *, rounds: Sequence[dict], comm, transport: str) -> dict:
    """The medians of a way, next to the bytes that the plan predicts for the host that sends most."""
    medians = {key: statistics.median(of_round[key] for of_round in rounds) for key in rounds[0]}
    step = Step(
        size.batch_size,
        trained.hotness,
        wire_bytes=2 if way.amp else 4,
        data_parallel_input=way.data_parallel_input,
        deduplicated=trained.deduplicated,
        different=trained.different,
        host_different=trained.host_different,
        ranks_per_host=comm.local_size,
    )
    of_ranks = [cost.sent_bytes for cost in cost_of(trained.plan, trained.tables, step)]
    members = comm.size // comm.local_size if transport == "mpi" else comm.size
    of_hosts = [sum(of_ranks[first : first + comm.local_size]) for first in range(0, comm.size, comm.local_size)]
    return {
        "way": way.flags,
        **medians,
        "all_ms": [of_round["step_ms"] for of_round in rounds],
        "samples_per_s": 1e3 * size.batch_size / medians["step_ms"],
        "planned_bytes": max(of_hosts) + allreduce_bytes(trained.dense_numbers, members),
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
