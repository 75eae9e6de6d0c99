#!/usr/bin/env python3
"""Puts one crafted inner packet, or many, straight into a tunnel device: what no honest stack would send.

    inject.py DEVICE KIND SOURCE DESTINATION [PORT] [COUNT]

The device's own peer encrypts it like any other packet. `plain` is the control: a good UDP datagram.
"""

import ipaddress
import socket
import struct
import sys

ETH_P_IP, ETH_P_IPV6 = 0x0800, 0x86DD


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def udp(source, destination, port, payload=b"crafted", length=None):
    source, destination = ipaddress.ip_address(source).packed, ipaddress.ip_address(destination).packed
    size = 8 + len(payload)
    header = struct.pack("!HHHH", 40000, port, length or size, 0)
    pseudo = source + destination + (struct.pack("!BBH", 0, 17, size) if len(source) == 4 else struct.pack("!II", size, 17))
    total = checksum(pseudo + header + payload)
    return header[:6] + struct.pack("!H", total or 0xFFFF) + payload


def ip4(source, destination, body, protocol=17, total=None, flags=0x4000, options=b"", ihl=None):
    words = 5 + len(options) // 4
    header = struct.pack("!BBHHHBBH4s4s", 0x40 | (ihl if ihl is not None else words), 0,
                         total if total is not None else words * 4 + len(body), 1, flags, 64, protocol, 0,
                         ipaddress.ip_address(source).packed, ipaddress.ip_address(destination).packed) + options
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + body


def ip6(source, destination, body, following=17, length=None):
    return struct.pack("!IHBB16s16s", 6 << 28, length if length is not None else len(body), following, 64,
                       ipaddress.ip_address(source).packed, ipaddress.ip_address(destination).packed) + body


def craft(kind, source, destination, port):
    good = udp(source, destination, port)
    if ":" in destination:
        return {
            "plain": lambda: ip6(source, destination, good),
            "hop-by-hop": lambda: ip6(source, destination, bytes([17, 0, 1, 4, 0, 0, 0, 0]) + good, 0),
            "routing": lambda: ip6(source, destination, bytes([17, 0, 4, 0, 0, 0, 0, 0]) + good, 43),
            "destination-options": lambda: ip6(source, destination, bytes([17, 0, 1, 4, 0, 0, 0, 0]) + good, 60),
            "fragment": lambda: ip6(source, destination, bytes([17, 0, 0, 1, 0, 0, 0, 9]) + good, 44),
            "bad-length": lambda: ip6(source, destination, good, length=len(good) + 400),
            "other-protocol": lambda: ip6(source, destination, good, 132),
        }[kind]()
    return {
        "plain": lambda: ip4(source, destination, good),
        "fragment": lambda: ip4(source, destination, good, flags=0x2000),
        "later-fragment": lambda: ip4(source, destination, good, flags=0x0001),
        "options": lambda: ip4(source, destination, good, options=b"\x01\x01\x01\x00"),
        "bad-length": lambda: ip4(source, destination, good, total=len(good) + 400),
        "bad-udp-length": lambda: ip4(source, destination, udp(source, destination, port, length=400)),
        "bad-header": lambda: ip4(source, destination, good, ihl=3),
        "truncated": lambda: ip4(source, destination, good[:4]),
        "other-protocol": lambda: ip4(source, destination, good, protocol=132),
    }[kind]()


def main():
    device, kind, source, destination = sys.argv[1:5]
    port, count = int((sys.argv[5:6] or ["5353"])[0]), int((sys.argv[6:7] or ["1"])[0])
    packet = craft(kind, source, destination, port)
    ether = ETH_P_IPV6 if ":" in destination else ETH_P_IP
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ether)) as sock:
        for _ in range(count):
            sock.sendto(packet, (device, ether))


if __name__ == "__main__":
    main()
