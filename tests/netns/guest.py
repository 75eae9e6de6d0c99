#!/usr/bin/env python3
"""What an attacker makes of an invitation.

  guest.py forge STRING            the same, with another secret and a checksum that holds
  guest.py mangle STRING           one character changed
  guest.py wg STRING PLACE         a wg-quick file for the throw-away key of that place, with a route for everything
"""
import base64, hashlib, hmac, ipaddress, subprocess, sys

PREFIX = "postern1-"


def unpack(string):
    text = string.removeprefix(PREFIX)
    return bytearray(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def pack(body):
    whole = bytes(body) + hashlib.sha256(bytes(body)).digest()[:4]
    return PREFIX + base64.urlsafe_b64encode(whole).decode().rstrip("=")


def throw_away(secret, place):
    """HKDF-SHA-256 (RFC 5869), one block."""
    extracted = hmac.new(b"postern invitation 1", secret, hashlib.sha256).digest()
    info = b"throw-away key " + place.to_bytes(2, "big")
    key = bytearray(hmac.new(extracted, info + b"\x01", hashlib.sha256).digest())
    key[0] &= 248
    key[31] = (key[31] & 127) | 64
    return bytes(key)


def wg(string, place):
    body = unpack(string)
    key = base64.b64encode(throw_away(bytes(body[35:67]), place)).decode()
    public = subprocess.run(["wg", "pubkey"], input=key, capture_output=True, text=True, check=True).stdout.strip()
    host = int.from_bytes(hashlib.sha256(base64.b64decode(public)).digest()[:8], "big")
    address = ipaddress.IPv6Address((0xFD70_6F73_7465_726E << 64) | host)
    endpoint = bytes(body[69 : 69 + body[68]]).decode()
    gateway = base64.b64encode(bytes(body[3:35])).decode()
    return f"""[Interface]
PrivateKey = {key}
Address = {address}/128
[Peer]
PublicKey = {gateway}
Endpoint = {endpoint}
AllowedIPs = fd70:6f73:7465:726e::/64, 192.0.2.0/24, 100.96.0.0/16, 2001:db8:a::/48
"""


what, string = sys.argv[1:3]
if what == "forge":
    body = unpack(string)[:-4]
    body[40] ^= 1
    print(pack(body))
elif what == "mangle":
    middle = len(string) // 2
    print(string[:middle] + ("A" if string[middle] != "A" else "B") + string[middle + 1 :])
else:
    print(wg(string, int(sys.argv[3])), end="")
