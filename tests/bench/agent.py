#!/usr/bin/env python3
"""What runs on a host: one byte back and forth over TCP, as a person at a terminal would.

  agent.py echo PORT                           a server that sends back what it gets
  agent.py ping ADDRESS PORT COUNT SECONDS     round trips over one connection, until either is reached
  agent.py connect ADDRESS PORT COUNT SECONDS  new connections: until open, and until the first byte is back
  agent.py flows ADDRESS COUNT PORT…           one datagram from each of so many ports to each of the ports given

The two before the last print one JSON object: a list of nanoseconds for each thing measured, and how many failed.
"""

import json
import select
import socket
import struct
import sys
import time


def echo(port):
    server = socket.create_server(("0.0.0.0", port), backlog=1024)
    server.setblocking(False)
    poll, open_now = select.epoll(), {}
    poll.register(server, select.EPOLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd == server.fileno():
                try:
                    accepted, _ = server.accept()
                except OSError:
                    continue
                accepted.setblocking(False)
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                open_now[accepted.fileno()] = accepted
                poll.register(accepted, select.EPOLLIN)
            elif not answer(open_now[fd]):
                poll.unregister(fd)
                open_now.pop(fd).close()


def answer(connection):
    """Sends back what is there; False when the other side has gone."""
    try:
        data = connection.recv(4096)
        if data:
            connection.send(data)
        return bool(data)
    except BlockingIOError:
        return True
    except OSError:
        return False


def opened(address, port):
    connection = socket.create_connection((address, port), timeout=10)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def round_trip(connection):
    connection.send(b"x")
    if connection.recv(1) != b"x":
        raise OSError("the other side closed")


def ping(address, port, count, seconds):
    connection, clock, took = opened(address, port), time.perf_counter_ns, []
    for _ in range(20):
        round_trip(connection)
    end = clock() + seconds * 1e9
    while len(took) < count:
        begin = clock()
        round_trip(connection)
        now = clock()
        took.append(now - begin)
        if now > end:
            break
    return {"trip": took}


def connect(address, port, count, seconds):
    clock, to_open, to_byte, failed = time.perf_counter_ns, [], [], 0
    end = clock() + seconds * 1e9
    while len(to_open) + failed < count and clock() < end:
        begin = clock()
        try:
            connection = opened(address, port)
            is_open = clock()
            round_trip(connection)
            to_byte.append(clock() - begin)
            to_open.append(is_open - begin)
            # A reset at the end: thousands of closed connections must not wait for their timers.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
        except OSError:
            failed += 1
    return {"connect": to_open, "first_byte": to_byte, "failed": failed}


def flows(address, count, ports):
    source, done = 10_000, 0
    while done < count:
        source += 1
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            try:
                sender.bind(("", source))
            except OSError:
                continue  # somebody has that port
            for port in ports:
                sender.sendto(b"x", (address, port))
        done += 1
        if done % 64 == 0:
            time.sleep(0.001)  # no queue on the way needs to be long


def main(what, *words):
    if what == "echo":
        return echo(int(words[0]))
    if what == "flows":
        return flows(words[0], int(words[1]), [int(word) for word in words[2:]])
    measure = {"ping": ping, "connect": connect}[what]
    print(json.dumps(measure(words[0], int(words[1]), int(words[2]), float(words[3]))))


if __name__ == "__main__":
    main(*sys.argv[1:])
