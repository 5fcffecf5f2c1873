"""How empty namespaces become a host: its name, /etc, ssh keys and network; and the pipe to its first process."""

import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

# The first process of a namespace: it obeys a pipe, and ends when the pipe's other end is closed or its owner is gone.
COMMANDS_FROM_STDIN = ["bash", "--norc", "-s"]

# The cgroups of the machine stay where programs look for them. The user's settings of ssh and shell do not count.
_FOLDERS = """set -e
hostname {name}
mount -t tmpfs tmpfs /run
mkdir /run/sshd /run/cgroup
mount --rbind /sys/fs/cgroup /run/cgroup
mount -t sysfs sysfs /sys
mount --move /run/cgroup /sys/fs/cgroup
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs -o mode=755 tmpfs /mnt
cp -a /etc/. /mnt/
mount --move /mnt /etc
[ ! -d ~/.ssh ] || mount -t tmpfs tmpfs ~/.ssh
[ ! -f ~/.bashrc ] || mount --bind /dev/null ~/.bashrc
rm -f /etc/hosts /etc/hostname /etc/resolv.conf
rm -rf /etc/ssh
mkdir /etc/ssh
cat > /etc/hosts <<'END'
127.0.0.1 localhost
{addresses}
END
echo {name} > /etc/hostname
touch /etc/resolv.conf
umask 077
cat > /etc/ssh/host_key <<'END'
{host_key}
END
cat > /etc/ssh/user_key <<'END'
{user_key}
END
umask 022
echo '{user_public}' > /etc/ssh/authorized_keys
cat > /etc/ssh/known_hosts <<'END'
{known_hosts}
END
cat > /etc/ssh/ssh_config <<'END'
IdentityFile /etc/ssh/user_key
GlobalKnownHostsFile /etc/ssh/known_hosts
UserKnownHostsFile /dev/null
BatchMode yes
KexAlgorithms curve25519-sha256
END
cat > /etc/ssh/sshd_config <<'END'
HostKey /etc/ssh/host_key
AuthorizedKeysFile /etc/ssh/authorized_keys
AuthenticationMethods publickey
PermitRootLogin prohibit-password
PidFile /run/sshd.pid
UsePAM no
UseDNS no
MaxStartups 100
MaxSessions 100
END
"""
_NETWORK = """set -e
ip link set lo up
ip address add {address}/24 dev eth0
ip link set eth0 up
"""


class Keys(NamedTuple):
    """Pairs of a private and a public ssh key.

    Attributes:
      user: logs in on every host.
      hosts: each host's own.
    """

    user: tuple[str, str]
    hosts: list[tuple[str, str]]


def make_keys(number: int) -> Keys:
    """A key for the user, and a key for each host."""
    with tempfile.TemporaryDirectory() as folder:
        pairs = []
        for index in range(number + 1):
            file = Path(folder, str(index))
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", file], check=True)
            pairs.append((file.read_text(), file.with_suffix(".pub").read_text().strip()))
    return Keys(pairs[0], pairs[1:])


def boot_script(index: int, names: list[str], keys: Keys) -> str:
    """The shell commands that the first process of host `index` runs, after its link is plugged in."""
    known = zip(names, keys.hosts, strict=True)
    folders = _FOLDERS.format(
        name=names[index],
        addresses="\n".join(f"{address_of(number)} {name}" for number, name in enumerate(names)),
        host_key=keys.hosts[index][0],
        user_key=keys.user[0],
        user_public=keys.user[1],
        known_hosts="\n".join(f"{name} {pair[1]}" for name, pair in known),
    )
    return folders + _NETWORK.format(address=address_of(index))


def say(first: subprocess.Popen, script: str) -> None:
    """Has the first process of a namespace run shell commands, and waits for them.

    Raises:
      RuntimeError: a command failed; the message has its words.
    """
    try:
        first.stdin.write(f"{script}\necho done\n".encode())
        first.stdin.flush()
        done = first.stdout.readline() == b"done\n"
    except BrokenPipeError:
        done = False
    if not done:
        raise RuntimeError(f"a host or the switch did not start: {first.communicate()[1].decode().strip()}")


def address_of(index: int) -> str:
    """The IPv4 address of a host."""
    return f"10.0.0.{index + 1}"
