#!/usr/bin/env python3
"""Says from where it is reached: what a target knows of whoever comes through a gateway.

  source.py tell ADDR PORT…                   a TCP and UDP server that answers "ADDRESS PORT" of its peer
  source.py hold tcp|udp ADDR PORT OWN_PORT   its client: from a port of its own, prints the answer and stays
"""

import selectors
import socket
import sys


def tell(address, ports):
    wakes = selectors.DefaultSelector()
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for port in ports:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            sock = socket.socket(family, kind)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((address, port))
            if kind == socket.SOCK_STREAM:
                sock.listen()
            wakes.register(sock, selectors.EVENT_READ)
    print("listening", flush=True)
    held = []
    while True:
        for key, _ in wakes.select():
            if key.fileobj.type == socket.SOCK_STREAM:
                connection, peer = key.fileobj.accept()
                held.append(connection)
                connection.sendall(text(peer))
            else:
                _, peer = key.fileobj.recvfrom(64)
                key.fileobj.sendto(text(peer), peer)


def text(peer):
    return f"{peer[0]} {peer[1]}".encode()


def hold(protocol, address, port, own_port):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("", own_port))
    sock.settimeout(5)
    sock.connect((address, port))
    if protocol == "udp":
        sock.send(b"?")
    print(sock.recv(64).decode(), flush=True)
    sock.settimeout(None)
    sock.recv(1)


verb, *arguments = sys.argv[1:]
if verb == "tell":
    tell(arguments[0], [int(port) for port in arguments[1:]])
else:
    hold(arguments[0], arguments[1], int(arguments[2]), int(arguments[3]))
