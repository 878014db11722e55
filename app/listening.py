"""Where the server listens and which names it answers to. Only this machine's own addresses until accounts exist."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

from app.accounts.directory import MAKE_AN_ADMIN
from app.guard import LOCAL_HOSTS

PORTS_TRIED = 100
HOST_NAME = re.compile(r"(?=.{1,253}(:|$))[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:\d{1,5})?|\[[0-9a-f:.]+\](:\d{1,5})?")


class ServerError(RuntimeError):
    """The server cannot be started as asked; the message says what to do."""


@dataclass(frozen=True)
class Listening:
    """What was asked for. ``allowed_hosts`` are further names that a browser may use in the address, as a proxy's
    name; ``trusted_proxies`` the addresses or networks whose X-Forwarded-For and -Proto are believed."""

    host: str = "127.0.0.1"
    port: int = 7860
    allowed_hosts: Sequence[str] = ()
    trusted_proxies: Sequence[str] = ()

    def check(self, admin_exists: bool) -> None:
        """Raise :class:`ServerError` for what cannot be, or may not be without an admin."""
        for name in self.allowed_hosts:
            if not HOST_NAME.fullmatch(name.lower()):
                raise ServerError(f"--allow-host {name}: write the name as in a browser's address, without http://.")
        for proxy in self.trusted_proxies:
            try:
                ipaddress.ip_network(proxy, strict=False)
            except ValueError:
                raise ServerError(f"--trusted-proxy {proxy}: write an IP address or a network, as 10.0.0.7.") from None
        if admin_exists or (self.is_local and not self.allowed_hosts and not self.trusted_proxies):
            return
        place = f"on {self.host}" if not self.is_local else "for other names or behind a proxy"
        raise ServerError(
            f"Not serving {place}: there are no accounts yet, so anybody who gets there could change the workspace. "
            f"Make an admin first: `{MAKE_AN_ADMIN}`. Or stay on 127.0.0.1 and, from another machine, "
            "use an SSH tunnel (ssh -L 7860:127.0.0.1:7860)."
        )

    @property
    def is_local(self) -> bool:
        """Whether nobody but this machine reaches the address."""
        return self._address.is_loopback

    @property
    def shown(self) -> str:
        """The host to open in a browser on this machine."""
        if self._address.is_unspecified:
            return "[::1]" if self._address.version == 6 else "127.0.0.1"
        return bracketed(self.host)

    @property
    def host_names(self) -> tuple[str, ...]:
        """Every name that a Host header may have, those of this machine first."""
        own = [socket.gethostname(), *_own_addresses()] if self._address.is_unspecified else [bracketed(self.host)]
        return tuple(dict.fromkeys([*LOCAL_HOSTS, *own, *self.allowed_hosts]))

    @property
    def _address(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
        return ipaddress.ip_address(_resolved(self.host)[1].split("%")[0])

    def open(self) -> socket.socket:
        """A listening socket on the port or the next free one after it. Raises :class:`ServerError`."""
        family, address = _resolved(self.host)
        for port in range(self.port, min(self.port + PORTS_TRIED, 65536)):
            # asyncio turns Nagle's algorithm off (40 ms an answer) only for sockets that say they are TCP.
            listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
            # Lets a restart reuse the port at once; a port that is being listened on is still refused on Linux.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((address, port))
                listener.listen()
            except OSError:
                listener.close()
            else:
                return listener
        last = self.port + PORTS_TRIED - 1
        raise ServerError(
            f"No port from {self.port} to {last} can be used on {self.host}; name another with --port, or check --host."
        )


def bracketed(host: str) -> str:
    """A host as an address in a browser has it: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


def _resolved(host: str) -> tuple[socket.AddressFamily, str]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise ServerError(f"--host {host}: this machine knows no such address; use 127.0.0.1 or one it has.") from None
    family, _, _, _, address = found[0]
    return family, address[0]


def _own_addresses() -> list[str]:
    families = (socket.AF_INET, socket.AF_INET6)
    interfaces = psutil.net_if_addrs().values()
    found = (entry for entries in interfaces for entry in entries if entry.family in families)
    return [bracketed(entry.address.split("%")[0]) for entry in found]
