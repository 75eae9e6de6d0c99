#!/usr/bin/env python3
"""Checks a flow log of Postern without any of its code.

  verify.py [--head N:HASH] FOLDER | FILE...

Lines are numbered, name the SHA-256 of the line before, and end in a CRC-32. --head is a line that
must be there, noted elsewhere earlier: without it, lines missing at the very end do not show.
A FILE without the name of a segment is a copy: exporters deliver at least once, so one of the last
100 000 lines may come again there, byte for byte.
Exit: 0 whole, 1 not whole (the first fault is named), 2 usage.
"""
import hashlib, os, re, sys, zlib

SEEN = 100_000
TAIL = re.compile(rb'[{,]"n":([1-9][0-9]{0,19}),"prev":"([0-9a-f]{64})","crc":"([0-9a-f]{8})"}$')
SEGMENT = re.compile(r"([0-9]{20})\.jsonl$")
HEAD = re.compile(r"([0-9]{1,20}):([0-9a-f]{64})$")


def fail(where, what):
    sys.exit(f"{where}: {what}")


def main(args):
    head = None
    if args[:1] == ["--head"]:
        wanted = HEAD.match("".join(args[1:2]))
        head, args = wanted and (int(wanted[1]), wanted[2]), args[2:] if wanted else []
    if len(args) == 1 and os.path.isdir(args[0]):
        args = [os.path.join(args[0], f) for f in sorted(os.listdir(args[0])) if SEGMENT.match(f)]
    if not args or args[0].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2
    last, digest, seen, known, again = None, None, head is None, {}, 0
    for file in args:
        named = SEGMENT.match(os.path.basename(file))
        for number, line in enumerate(open(file, "rb"), 1):
            where, tail = f"{file} line {number}", TAIL.search(line[:-1])
            if not line.endswith(b"\n") or not line.startswith(b"{") or not tail:
                fail(where, "torn, or no line of a flow log")
            n, prev = int(tail[1]), tail[2].decode()
            if zlib.crc32(line[: tail.start(3) - 8]) != int(tail[3], 16):
                fail(where, f"line {n} was changed: its checksum does not match")
            if last is None and named and n != int(named[1]):
                fail(where, f"its name says that it begins with line {int(named[1])}, not with line {n}")
            if not named and n in known:
                if known[n] != hashlib.sha256(line[:-1]).hexdigest():
                    fail(where, f"line {n} is there twice, and the two differ")
                again += 1
                continue
            if last is not None and n != last + 1:
                fail(where, f"line {last + 1} is missing: line {n} stands in its place")
            if prev != (digest or (prev if n > 1 else "0" * 64)):
                fail(where, f"line {n - 1} was changed: it is not the one that line {n} was sealed after")
            last, digest = n, hashlib.sha256(line[:-1]).hexdigest()
            known[n] = digest
            known.pop(n - SEEN, None)
            if head and n == head[0]:
                seen = digest == head[1] or fail(where, f"line {n} is not the expected one")
    if not seen or last is None:
        fail(args[-1], f"the log ends with line {last}" + (f", not with {head[0]} in it" if head else ""))
    repeats = f"; {again} lines came again, byte for byte" if again else ""
    print(f"whole, up to line {last}{repeats}\n{last}:{digest}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
