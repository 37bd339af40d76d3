"""Tells public hosts of the web from special-purpose addresses, by IANA's registries.

The tables are written out, since those in Python's `ipaddress` change from release to release. A block that is
reachable and yet holds no host of the web, such as the sinks of AS112 or relays, counts as special too. A tunnel's
address is checked by the address that it embeds, where that can be read.
"""

from __future__ import annotations

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_SPECIAL_V4 = tuple(
    ipaddress.ip_network(block)
    for block in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24",
        "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
    )
)  # fmt: skip
_GLOBAL_V4 = frozenset(map(ipaddress.ip_address, ("192.0.0.9", "192.0.0.10")))
"""Anycast addresses in 192.0.0.0/24 that the registry calls globally reachable."""
_UNICAST_V6 = ipaddress.IPv6Network("2000::/3")
"""All global unicast addresses; addresses outside of it that embed others (compatible, site-local) are no hosts."""
_SPECIAL_V6 = tuple(
    ipaddress.IPv6Network(block)
    for block in ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20")
)
"""Special blocks in the unicast range. Teredo, in the first, and 6to4 are tunnels that are no longer in use."""
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_ISATAP = frozenset({0x00005EFE, 0x02005EFE})
"""Upper halves of interface ids whose lower half is an IPv4 address (RFC 5214)."""


def is_public(address: Address) -> bool:
    """Says whether a public host of the web may have an address.

    >>> is_public(ipaddress.ip_address("8.8.8.8")), is_public(ipaddress.ip_address("2000::5efe:7f00:1"))
    (True, False)
    """
    if isinstance(address, ipaddress.IPv4Address):
        return address in _GLOBAL_V4 or not any(address in block for block in _SPECIAL_V4)
    # The embedded address is where the packets go, so a private one must not pass in the dress of a public one.
    embedded = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if address.ipv4_mapped or address in _NAT64:
        return is_public(embedded)
    if address not in _UNICAST_V6 or any(address in block for block in _SPECIAL_V6):
        return False
    return (int(address) >> 32) & 0xFFFFFFFF not in _ISATAP or is_public(embedded)
