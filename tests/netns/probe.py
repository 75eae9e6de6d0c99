#!/usr/bin/env python3
"""Small network programs that say in one line what a user or an attacker would see.

  probe.py tcp ADDR PORT                one connection: open | refused | prohibited | unreachable | timeout
  probe.py udp ADDR PORT                one datagram: answered | prohibited | refused | unreachable | silent
  probe.py ping ADDR                    one echo: answered | prohibited | unreachable | silent
  probe.py knock ADDR PORT COUNT        COUNT garbage datagrams of many sizes: answered | silent
  probe.py scan PREFIX PORT PARALLEL    a connection to every address: the number of each answer
  probe.py echo-udp ADDR PORT           a UDP server that sends back what it gets, one output line for each
  probe.py serve ADDR PORT              a TCP server: a numbered line every 20 ms to whoever says "talk" or
                                        "chat", nothing to whoever says "idle"; prints how each connection ended
  probe.py follow ADDR PORT talk|idle|chat   its client: prints each line's arrival, and how it ended; one
                                        that chats says something every 100 ms as well
  probe.py burst ADDR PORT RUNS         RUNS times 20 datagrams in one call to an echo-udp: same | lost | changed
  probe.py tick ADDR PORT               a datagram to an echo-udp every 20 ms: prints each answer's arrival

The first lines print `WORD MILLISECONDS`. Times of serve, follow and tick are milliseconds of CLOCK_BOOTTIME, the
clock of /proc/uptime, so both ends and the shell compare.
"""

import errno
import ipaddress
import os
import random
import selectors
import socket
import struct
import sys
import threading
import time

PATIENCE = 3.0  # seconds that a probe waits before it calls the other side silent


def boot_ms():
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * 1000)


def family(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


ERRORS = {
    errno.ECONNREFUSED: "refused",
    errno.ECONNRESET: "reset",
    errno.EACCES: "prohibited",  # IPv6: administratively prohibited
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
    errno.ETIMEDOUT: "timeout",
}


def word_of(error):
    return ERRORS.get(error, errno.errorcode.get(error, str(error)))


def timed(probe):
    begin = time.monotonic()
    word = probe()
    print(word, int((time.monotonic() - begin) * 1000), flush=True)


def tcp(address, port):
    with socket.socket(family(address), socket.SOCK_STREAM) as sock:
        sock.settimeout(PATIENCE)
        try:
            sock.connect((address, int(port)))
            return "open"
        except socket.timeout:
            return "timeout"
        except OSError as error:
            return word_of(error.errno)


def udp(address, port):
    version6 = family(address) == socket.AF_INET6
    with socket.socket(family(address), socket.SOCK_DGRAM) as sock:
        level, option = (socket.IPPROTO_IPV6, 25) if version6 else (socket.IPPROTO_IP, 11)
        sock.setsockopt(level, option, 1)  # IPV6_RECVERR, IP_RECVERR
        sock.settimeout(PATIENCE)
        sock.connect((address, int(port)))
        sock.send(b"probe")
        try:
            sock.recv(2048)
            return "answered"
        except socket.timeout:
            return "silent"
        except OSError as error:
            return queued_error(sock, version6) or word_of(error.errno)


def burst(address, port, runs):
    """Each run leaves with UDP_SEGMENT, so a TUN may get it in one piece; its echoes come in any order."""
    with socket.socket(family(address), socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_UDP, 103, 1000)
        sock.settimeout(PATIENCE)
        sock.connect((address, int(port)))
        for _ in range(int(runs)):
            sent = os.urandom(20 * 1000)
            sock.send(sent)
            try:
                got = [sock.recv(2048) for _ in range(20)]
            except socket.timeout:
                return "lost"
            if sorted(got) != sorted(sent[at : at + 1000] for at in range(0, len(sent), 1000)):
                return "changed"
    return "same"


def queued_error(sock, version6):
    """The ICMP type and code behind a socket error, from the error queue (ip(7))."""
    try:
        _, control, _, _ = sock.recvmsg(512, 512, socket.MSG_ERRQUEUE)
    except OSError:
        return None
    for _, _, data in control:
        if len(data) >= 16:
            _, _, kind, code = struct.unpack_from("=IBBB", data)
            return meaning(kind, code, version6)
    return None


def meaning(kind, code, version6):
    if version6:
        return {(1, 1): "prohibited", (1, 4): "refused"}.get((kind, code), "unreachable")
    return {(3, 9): "prohibited", (3, 10): "prohibited", (3, 13): "prohibited", (3, 3): "refused"}.get(
        (kind, code), "unreachable"
    )


def ping(address):
    version6 = family(address) == socket.AF_INET6
    protocol = socket.IPPROTO_ICMPV6 if version6 else socket.IPPROTO_ICMP
    mark = os.urandom(8)
    with socket.socket(family(address), socket.SOCK_RAW, protocol) as sock:
        ident = random.randrange(1, 65536)
        body = struct.pack("!HH", ident, 1) + mark
        if version6:
            packet = struct.pack("!BBH", 128, 0, 0) + body
        else:
            packet = struct.pack("!BBH", 8, 0, checksum(struct.pack("!BBH", 8, 0, 0) + body)) + body
        try:
            sock.sendto(packet, (address, 0))
        except OSError as error:
            return word_of(error.errno)
        deadline = time.monotonic() + PATIENCE
        while (left := deadline - time.monotonic()) > 0:
            sock.settimeout(left)
            try:
                got = sock.recv(2048)
            except socket.timeout:
                break
            message = got if version6 else got[(got[0] & 15) * 4 :]
            if mark not in message:
                continue
            if message[0] == (129 if version6 else 0):
                return "answered"
            if message[0] != (128 if version6 else 8):
                return meaning(message[0], message[1], version6)
    return "silent"


def checksum(data):
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def knock(address, port, count):
    """Garbage of every WireGuard message type and of none, also of the right lengths."""
    dice = random.Random(7)
    lengths = [0, 1, 31, 32, 64, 92, 148, 149, 1200, 1472]
    with socket.socket(family(address), socket.SOCK_DGRAM) as sock:
        sock.connect((address, int(port)))
        for turn in range(int(count)):
            data = bytearray(dice.randbytes(lengths[turn % len(lengths)]))
            if len(data) >= 4 and turn % 3:
                data[0:4] = bytes([1 + turn % 4, 0, 0, 0])
            sock.send(data)
        sock.settimeout(0.5)
        try:
            sock.recv(2048)
            return "answered"
        except socket.timeout:
            return "silent"
        except OSError as error:
            return word_of(error.errno)


def scan(prefix, port, parallel):
    """A connect scan: asks for every address at once, `parallel` at a time."""
    waiting = [str(host) for host in ipaddress.ip_network(prefix)]
    asked, counts = selectors.DefaultSelector(), {}
    begin = time.monotonic()

    def done(sock, word):
        counts[word] = counts.get(word, 0) + 1
        sock.close()

    while waiting or asked.get_map():
        while waiting and len(asked.get_map()) < int(parallel):
            address = waiting.pop()
            sock = socket.socket(family(address), socket.SOCK_STREAM)
            sock.setblocking(False)
            error = sock.connect_ex((address, int(port)))
            if error in (0, errno.EINPROGRESS):
                asked.register(sock, selectors.EVENT_WRITE, time.monotonic() + PATIENCE)
            else:
                done(sock, word_of(error))
        for key, _ in asked.select(0.05):
            asked.unregister(key.fileobj)
            error = key.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            done(key.fileobj, word_of(error) if error else "open")
        late = [key for key in asked.get_map().values() if key.data < time.monotonic()]
        for key in late:
            asked.unregister(key.fileobj)
            done(key.fileobj, "timeout")
    counts["ms"] = int((time.monotonic() - begin) * 1000)
    print(" ".join(f"{word}={count}" for word, count in sorted(counts.items())), flush=True)


def echo_udp(address, port):
    with socket.socket(family(address), socket.SOCK_DGRAM) as sock:
        sock.bind((address, int(port)))
        print("listening", flush=True)
        while True:
            data, peer = sock.recvfrom(65535)
            print(peer[0], data.hex()[:64], flush=True)
            sock.sendto(data, peer)


def serve(address, port):
    server = socket.create_server((address, int(port)), family=family(address), backlog=64)
    print("listening", flush=True)
    while True:
        sock, peer = server.accept()
        threading.Thread(target=serve_one, args=(sock, peer), daemon=True).start()


def serve_one(sock, peer):
    name = "idle"
    try:
        name = sock.recv(64).split()[0].decode() + f" {peer[1]}"
        sock.sendall(b"ready\n")
        number = 0
        while not name.startswith("idle"):
            sock.sendall(b"%d\n" % number)
            number += 1
            time.sleep(0.02)
        while sock.recv(64):
            pass
        how = "eof"
    except OSError as error:
        how = word_of(error.errno)
    print("ended", name, how, boot_ms(), flush=True)


def follow(address, port, mode):
    sock = socket.create_connection((address, int(port)), timeout=5)
    sock.settimeout(None)
    sock.sendall(mode.encode() + b"\n")
    how = "eof"
    if mode == "chat":
        threading.Thread(target=chat, args=(sock,), daemon=True).start()
    try:
        while data := sock.recv(4096):
            for line in data.split():
                print("line", line.decode(), boot_ms(), flush=True)
    except OSError as error:
        how = word_of(error.errno)
    print("ended", mode, how, boot_ms(), flush=True)


def chat(sock):
    try:
        while True:
            time.sleep(0.1)
            sock.sendall(b"and you?\n")
    except OSError:
        pass  # the reader says how it ended


def tick(address, port):
    with socket.socket(family(address), socket.SOCK_DGRAM) as sock:
        sock.connect((address, int(port)))
        sock.settimeout(0.02)
        number = 0
        while True:
            due = time.monotonic() + 0.02
            number += 1
            try:
                sock.send(b"%d" % number)
                print("answer", sock.recv(64).decode(), boot_ms(), flush=True)
            except OSError:
                pass
            time.sleep(max(0, due - time.monotonic()))


def main():
    verbs = {"tcp": tcp, "udp": udp, "ping": ping, "knock": knock, "burst": burst}
    servers = {"scan": scan, "echo-udp": echo_udp, "serve": serve, "follow": follow, "tick": tick}
    verb, arguments = sys.argv[1], sys.argv[2:]
    if verb in verbs:
        timed(lambda: verbs[verb](*arguments))
    else:
        servers[verb](*arguments)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
