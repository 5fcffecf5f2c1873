"""Runs an elastic job: a lost rank or host does not end it, and a host that comes back is taken in.

    python -m dlrm_tf2.elastic -H host1:4,host2:4 dlrm --save_checkpoint_path DIR --checkpoint_every N ...
    python -m dlrm_tf2.elastic --min_np 2 --host_discovery_script ./hosts.sh dlrm ...

It starts the ranks with a launcher, and starts them again from the last checkpoint on the slots that are left.
"""

import argparse
import functools
import sys

from dlrm_tf2.elastic.hosts import Hosts, HostsError, hosts_of_script, parse_hosts
from dlrm_tf2.elastic.launching import program_of
from dlrm_tf2.elastic.supervisor import GivenUp, Interrupted, Rules, Supervisor
from dlrm_tf2.runtime import terminal

_PROGRAM = "python -m dlrm_tf2.elastic"
# gloo's own time-out of 30 s would also end ranks that wait for a rank that starts slowly.
_LAUNCHER = "horovodrun --gloo --gloo-timeout-seconds 600"


def main(arguments: list[str] | None = None) -> int:
    """Runs the program; returns its exit status: 0, 1 for an error, 128 + number of a signal."""
    try:
        flags = _parser().parse_args(sys.argv[1:] if arguments is None else arguments)
        find = _finder(flags)
        cooldown_s = _checked(flags)
        most, command = flags.max_np, tuple(flags.command)
        rules = Rules(
            flags.launcher,
            command if any(word.startswith("--elastic") for word in command) else (*command, "--elastic"),
            least=flags.min_np,
            most=most,
            patience_s=flags.elastic_timeout,
            reset_limit=flags.reset_limit,
            silence_s=flags.silence_s,
        )
        return Supervisor(rules, Hosts(find, cooldown_s)).run()
    except (GivenUp, HostsError, argparse.ArgumentTypeError, OSError) as error:
        terminal.warn(f"elastic: {error}")
        return 1
    except Interrupted as interrupted:
        terminal.warn(f"elastic: {interrupted}")
        return interrupted.status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=_PROGRAM,
        description=__doc__.splitlines()[0],
        usage=f"{_PROGRAM} [--min_np N] [-H HOST:SLOTS,... | --host_discovery_script FILE] ... dlrm --flag ...",
        allow_abbrev=False,
    )

    def add(name: str, help_text: str, **more: object) -> None:
        parser.add_argument(f"--{name}", *({f"--{name.replace('_', '-')}"} - {f"--{name}"}), help=help_text, **more)

    parser.add_argument("-H", "--hosts", help="the hosts and their slots, such as host1:4,host2:4", metavar="HOSTS")
    add("host_discovery_script", "a program that prints the hosts, one HOST or HOST:SLOTS a line", metavar="FILE")
    add("slots_per_host", "slots of a host that is listed without a number (1)", type=int, default=1, metavar="N")
    add("min_np", "fewest ranks to train with (1)", type=int, default=1, metavar="N")
    add("max_np", "most ranks; not given, all slots", type=int, metavar="N")
    add("elastic_timeout", "seconds to wait for --min_np slots (600)", type=float, default=600.0, metavar="S")
    add("reset_limit", "most restarts; not given, no limit", type=int, metavar="N")
    add(
        "blacklist_cooldown_range",
        "seconds without a slot whose rank was lost: after the first loss, and at most; doubled at each loss (60 3600)",
        type=float,
        nargs=2,
        default=(60.0, 3600.0),
        metavar=("S", "S"),
    )
    add("silence_s", "a rank that is silent for so many seconds is lost (20)", type=float, default=20.0, metavar="S")
    add(
        "launcher",
        f"what starts the ranks; it is given -np N -H HOST:SLOTS,... ({_LAUNCHER})",
        default=_LAUNCHER,
        metavar="WORDS",
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, help="the program of the ranks and its flags")
    return parser


def _finder(flags: argparse.Namespace) -> functools.partial:
    """A function that returns the hosts that the user lists."""
    if (flags.hosts is None) == (flags.host_discovery_script is None):
        raise HostsError("give either -H HOST:SLOTS,... or --host_discovery_script FILE")
    if flags.hosts is not None:
        words = flags.hosts.split(",")
        try:
            parse_hosts(words, flags.slots_per_host)
        except HostsError as error:
            raise HostsError(f"-H {flags.hosts}: {error}") from None
        return functools.partial(parse_hosts, words, flags.slots_per_host)
    return functools.partial(hosts_of_script, flags.host_discovery_script, flags.slots_per_host)


def _checked(flags: argparse.Namespace) -> tuple[float, float]:
    """The range of --blacklist_cooldown_range. Raises ArgumentTypeError for flags that make no sense."""
    least, most = flags.blacklist_cooldown_range
    for name in ("min_np", "max_np", "slots_per_host"):
        value = getattr(flags, name)
        if value is not None and value < 1:
            raise argparse.ArgumentTypeError(f"--{name} is {value}; it must be at least 1")
    if flags.max_np is not None and flags.max_np < flags.min_np:
        raise argparse.ArgumentTypeError(f"--max_np {flags.max_np} is less than --min_np {flags.min_np}")
    if not 0 <= least <= most:
        raise argparse.ArgumentTypeError(
            f"--blacklist_cooldown_range {least:g} {most:g}: expected seconds from 0 on, the smaller number first"
        )
    if not flags.silence_s >= 5:
        raise argparse.ArgumentTypeError(f"--silence_s is {flags.silence_s:g}; it must be at least 5")
    if program_of(flags.launcher) is None:
        raise argparse.ArgumentTypeError(f"--launcher {flags.launcher}: is not a program in the PATH")
    if not flags.command:
        raise argparse.ArgumentTypeError("the program is missing: put it behind the flags, as in `... dlrm --flag ...`")
    return least, most


if __name__ == "__main__":
    sys.exit(main())
