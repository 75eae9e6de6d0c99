#!/usr/bin/env python3
"""The attacker on the path: relays a tunnel's datagrams both ways, and abuses what it has seen.

    relay.py LISTEN_ADDRESS LISTEN_PORT GATEWAY_ADDRESS GATEWAY_PORT

Every datagram towards the gateway goes first with one bit flipped, then as it was, then once more; and the bent
and the repeated one come from a stranger's socket too, which counts what it is answered. Prints the counts at
each datagram: relayed, replayed, flipped, answers to the stranger.
"""

import random
import select
import socket
import sys


def main():
    listen, gateway = (sys.argv[1], int(sys.argv[2])), (sys.argv[3], int(sys.argv[4]))
    near = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    near.bind(listen)
    far = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    far.connect(gateway)
    stranger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    stranger.connect(gateway)
    dice = random.Random(1)
    relayed = replayed = flipped = answers = 0
    client = None
    print("listening", flush=True)
    while True:
        for sock in select.select([near, far, stranger], [], [])[0]:
            if sock is near:
                data, client = near.recvfrom(65535)
                bent = bytearray(data)
                bent[dice.randrange(8, len(bent))] ^= 1 << dice.randrange(8)
                for sock in (stranger, far):
                    sock.send(bent)
                far.send(data)
                for sock in (stranger, far):
                    sock.send(data)
                relayed, replayed, flipped = relayed + 1, replayed + 2, flipped + 2
            elif sock is far:
                data = far.recv(65535)
                if client:
                    near.sendto(data, client)
            else:
                stranger.recv(65535)
                answers += 1
            print(f"relayed={relayed} replayed={replayed} flipped={flipped} answers={answers}", flush=True)


if __name__ == "__main__":
    main()
