"""The IPv4 addresses of this machine."""

import fcntl
import socket
import struct

_SIOCGIFADDR = 0x8915  # number of Linux, which Python 3.11 does not name


def of_this_machine() -> list[str]:
    """The IPv4 addresses of this machine, without 127.x."""
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for _, name in socket.if_nameindex():
            try:
                reply = fcntl.ioctl(any_socket.fileno(), _SIOCGIFADDR, struct.pack("256s", name.encode()))
            except OSError:
                continue  # this interface has no address
            found.append(socket.inet_ntoa(reply[20:24]))
    return [address for address in found if not address.startswith("127.")]
