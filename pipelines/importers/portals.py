"""A Socrata portal as foreign configurations name it: a host, maybe with a scheme, a port, and a name and password."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any
from urllib.parse import unquote, urlsplit

from pipelines.importers.plan import PROVIDER, Wanted

FOUR_BY_FOUR = re.compile(r"[a-z0-9]{4}-[a-z0-9]{4}")
NOT_AN_ID = "This is not the id of a Socrata dataset."
LIKE_AN_ID = "Write the eight characters at the end of the dataset's web address; they look like rq3b-xjk8."
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|[0-9A-Fa-f:.]+")


@dataclass(frozen=True)
class Portal:
    """`host` is the host, with the port where one is named; `address` carries no name and no password."""

    host: str
    address: str
    user: str = ""
    password: str = field(default="", repr=False)

    @property
    def slug(self) -> str:
        return as_slug(self.host)

    def wanted(self, *, file: str, line: int, lines: Mapping[str, int], values: Mapping[str, Any], secrets: Mapping[str, str]) -> Wanted:
        """It as a provider; `values` and `secrets` are what else the file says of it."""
        secrets = {**secrets, **({"password": self.password} if self.password else {})}
        said: dict[str, Any] = {"kind": "socrata", "base_url": self.address, **values}
        if self.user:
            said["parameters"] = {"user": self.user}
        if secrets:
            said["secrets"] = secrets
        return Wanted(PROVIDER, self.slug, said, file, line, lines, first={"title": self.host}, is_shared=True)


def portal_at(address: str) -> Portal:
    """The portal of a host or an address. Raises ValueError in words that do not repeat it: it may hold a password."""
    address = address.strip()
    parts = urlsplit(address if "://" in address else f"https://{address}")
    try:
        port = parts.port
    except ValueError:
        raise ValueError("The port of this address is not a number.") from None
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https"):
        raise ValueError("This address begins neither with https:// nor with http://.")
    if not _HOST.fullmatch(host):
        raise ValueError("This is not the name of a host.")
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError("This is the address of a page, and the portal's own is wanted.")
    name = f"[{host}]" if ":" in host else host
    place = f"{name}:{port}" if port else name
    return Portal(place, f"{parts.scheme}://{place}", unquote(parts.username or ""), unquote(parts.password or ""))


def is_near(address: str) -> bool:
    """Whether an address is one that is asked only if the operator allows it: no TLS, this machine, a number of a private network."""
    try:
        parts = urlsplit(address)
        host = parts.hostname or ""
    except ValueError:
        return False
    try:
        return parts.scheme == "http" or not ip_address(host).is_global
    except ValueError:
        return host == "localhost" or host.endswith((".localhost", ".local", ".internal"))


def as_slug(words: str) -> str:
    """ "data.lacity.org" → "data-lacity-org", "pet_license" → "pet-license"."""
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")[:80]


def as_title(words: str) -> str:
    """ "pet_license" → "Pet license"."""
    return words.replace("_", " ").replace("-", " ").strip().capitalize()
