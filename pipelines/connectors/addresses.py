"""Which network addresses a connector may reach: every public one, and what OUTBOUND_ALLOW names."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

IP = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Written out, because neither `is_private` nor `is_global` is enough: Python 3.11 calls 100.64.0.1 not private, and
# 64:ff9b::a00:1 (NAT64 of 10.0.0.1), 2002:7f00:1:: (6to4 of 127.0.0.1), 192.0.0.8 and 224.0.0.1 global.
_NOT_PUBLIC_4 = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24",
        "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
    )
)  # fmt: skip
_GLOBAL_6 = ipaddress.ip_network("2000::/3")
_NOT_PUBLIC_6 = tuple(
    # Teredo, ORCHID and benchmarking; documentation; 6to4; AS112; documentation
    ipaddress.ip_network(network)
    for network in ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20")
)
#: Where clouds keep the credentials of a machine: a *name* on the allow-list never opens these, only the address itself.
_ONLY_BY_ADDRESS = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4", "::/128", "fd00:ec2::/32", "fe80::/10", "ff00::/8",
    )
)  # fmt: skip


def address(text: str) -> IP:
    """An address as the socket gives it, without its scope; an IPv4 address inside IPv6 (::ffff:127.0.0.1) comes out as IPv4."""
    ip = ipaddress.ip_address(text.partition("%")[0])
    return getattr(ip, "ipv4_mapped", None) or ip


def is_public(ip: IP) -> bool:
    """Whether anyone on the internet may have this address, and no machine behind our own walls."""
    if ip.version == 4:
        return ip.is_global and not any(ip in network for network in _NOT_PUBLIC_4)
    return ip.is_global and ip in _GLOBAL_6 and not any(ip in network for network in _NOT_PUBLIC_6)


@dataclass(frozen=True)
class _Entry:
    """One line of the allow-list: a name or a network, at one port or any."""

    name: str
    network: Network | None
    port: int | None


def _entry(text: str) -> _Entry:
    """Read "host", "host:8443", "10.1.2.3", "[::1]:8000" or "10.1.0.0/16". Raises ValueError with the entry's text."""
    entry = text.strip().lower()
    host, port = entry, None
    if "/" not in entry:
        if entry.startswith("["):
            host, closed, tail = entry[1:].partition("]")
            # what does not close its bracket is no address: let it fail below, whole
            host, port = (host, tail.removeprefix(":") or None) if closed else (entry, None)
        elif entry.count(":") == 1:
            host, _, port = entry.partition(":")
    if port is not None and not (port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"OUTBOUND_ALLOW has {text!r}: {port!r} is not a port")
    try:
        network = ipaddress.ip_network(host, strict=False)
    except ValueError:
        network = None
        if not host or "/" in host or ":" in host or any(character.isspace() for character in host):
            raise ValueError(f"OUTBOUND_ALLOW has {text!r}: not a host name, a host:port or a network like 10.1.0.0/16") from None
    return _Entry(host.rstrip("."), network, int(port) if port else None)


class AllowList:
    """The setting OUTBOUND_ALLOW: host names, host:port pairs and networks that may be reached though they are not public."""

    def __init__(self, entries: Iterable[str]):
        self._entries = tuple(_entry(text) for text in entries if text.strip())

    def permits(self, host: str, port: int, ip: IP) -> bool:
        """Whether a connection made for `host` may go to `ip`."""
        if is_public(ip):
            return True
        guarded = any(ip in network for network in _ONLY_BY_ADDRESS)
        for entry in self._entries:
            if entry.port not in (None, port):
                continue
            if ip in entry.network if entry.network else (entry.name == host.lower().rstrip(".") and not guarded):
                return True
        return False

    def names(self, host: str, port: int) -> bool:
        """Whether the list itself names this host, without asking DNS, which may say something else a moment later."""
        host = host.lower().strip("[]").rstrip(".")
        try:
            ip = address("127.0.0.1" if host == "localhost" else host)
        except ValueError:
            ip = None
        return any(
            entry.name == host or (ip is not None and entry.network is not None and ip in entry.network)
            for entry in self._entries
            if entry.port in (None, port)
        )
