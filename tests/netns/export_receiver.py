#!/usr/bin/env python3
"""A server for exporters that knows nothing of Postern: it decodes what it gets by other people's libraries.

    export_receiver.py serve --kind loki|otlp --address A --port P --cert FILE --key FILE --authorization VALUE
                             [--tenant T] [--refuse-n N] --trouble FILE --out FILE
    export_receiver.py check --kind loki|otlp --head N --parked FILE OUT
    export_receiver.py chain --head N FILE

`serve` appends one JSON object for each line, on disk before the answer. While the file of --trouble is there, holding
`STATUS COUNT [RETRY-AFTER]`, so many requests are answered with that status and nothing is kept. A request with line
--refuse-n is answered 400. `check`: every number from 1 to the head is there, in order per stream, with its labels, and
all lines are one chain. `chain`: the same of a file of plain lines. Both print how many were there more than once.
"""

import argparse
import calendar
import hashlib
import json
import os
import ssl
import sys
import time
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock

NANO = 1_000_000_000


def loki_messages():
    """logproto.PushRequest, from the documentation of Loki's push API."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2  # noqa: F401

    file = descriptor_pb2.FileDescriptorProto(name="push.proto", package="logproto", syntax="proto3",
                                              dependency=["google/protobuf/timestamp.proto"])
    kinds = {"string": 9, "message": 11}

    def message(name, *fields):
        added = file.message_type.add(name=name)
        for number, (field, kind, repeated) in enumerate(fields, 1):
            one = added.field.add(name=field, number=number, label=3 if repeated else 1,
                                  type=kinds.get(kind, kinds["message"]))
            if kind not in kinds:
                one.type_name = kind

    message("PushRequest", ("streams", ".logproto.StreamAdapter", True))
    message("StreamAdapter", ("labels", "string", False), ("entries", ".logproto.EntryAdapter", True))
    message("EntryAdapter", ("timestamp", ".google.protobuf.Timestamp", False), ("line", "string", False),
            ("structuredMetadata", ".logproto.LabelPairAdapter", True))
    message("LabelPairAdapter", ("name", "string", False), ("value", "string", False))
    pool = descriptor_pool.Default()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("logproto.PushRequest"))


def loki(body):
    import cramjam

    push = MESSAGE.FromString(bytes(cramjam.snappy.decompress_raw(body)))
    for stream in push.streams:
        for entry in stream.entries:
            yield {"stream": stream.labels, "time": entry.timestamp.seconds * NANO + entry.timestamp.nanos,
                   "line": entry.line, "metadata": {each.name: each.value for each in entry.structuredMetadata}}


def otlp_messages():
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

    return ExportLogsServiceRequest


def otlp(body):
    def value(any_value):
        return getattr(any_value, any_value.WhichOneof("value"))

    def pairs(attributes):
        return {each.key: value(each.value) for each in attributes}

    for resource in MESSAGE.FromString(body).resource_logs:
        for scope in resource.scope_logs:
            for record in scope.log_records:
                yield {"stream": json.dumps(pairs(resource.resource.attributes), sort_keys=True),
                       "time": record.time_unix_nano, "line": record.body.string_value,
                       "metadata": pairs(record.attributes) | {"severity": record.severity_text}}


MESSAGE = None


class Server(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    options = None
    lock = Lock()

    def log_message(self, form, *values):
        print(time.strftime("%H:%M:%S"), form % values, flush=True)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        with self.lock:
            status, retry_after, text = self.take(body)
        self.send_response(status)
        if retry_after:
            self.send_header("Retry-After", retry_after)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def take(self, body):
        o = self.options
        if self.path != {"loki": "/loki/api/v1/push", "otlp": "/v1/logs"}[o.kind]:
            return 404, None, b"no such path"
        if self.headers["authorization"] != o.authorization:
            return 401, None, b"who are you?"
        if self.headers["x-scope-orgid"] != o.tenant:
            return 401, None, b"no org id"
        if self.headers["content-type"] != "application/x-protobuf":
            return 415, None, b"unsupported media type"
        if os.path.exists(o.trouble):
            status, count, *retry_after = open(o.trouble).read().split()
            if int(count) > 1:
                with open(o.trouble + ".new", "w") as file:
                    print(status, int(count) - 1, *retry_after, file=file)
                os.rename(o.trouble + ".new", o.trouble)
            else:
                os.remove(o.trouble)
            return int(status), retry_after[0] if retry_after else None, b"not now"
        entries = list({"loki": loki, "otlp": otlp}[o.kind](body))
        if any(json.loads(entry["line"])["n"] == o.refuse_n for entry in entries):
            return 400, None, b"entry too far behind"
        with open(o.out, "a") as file:
            for entry in entries:
                print(json.dumps(entry), file=file)
            file.flush()
            os.fsync(file.fileno())
        return (204 if o.kind == "loki" else 200), None, b""


def serve(options):
    global MESSAGE
    MESSAGE = {"loki": loki_messages, "otlp": otlp_messages}[options.kind]()
    Server.options = options
    server = ThreadingHTTPServer((options.address, options.port), Server)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(options.cert, options.key)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    print("listening", flush=True)
    server.serve_forever()


def nanos(text):
    return (calendar.timegm(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S")) * 1000 + int(text[20:23])) * 1_000_000


def chain(lines):
    """Lines by number, from 1, each with the hash of the one before and its own checksum."""
    prev = "0" * 64
    for n, line in enumerate(lines, 1):
        said, raw = json.loads(line), line.encode()
        assert said["n"] == n, f"line {said['n']} in the place of {n}"
        assert said["prev"] == prev, f"line {n} does not follow the one before"
        sealed = raw[:raw.rindex(b',"crc":"')]
        assert said["crc"] == f"{zlib.crc32(sealed):08x}", f"line {n} was changed"
        prev = hashlib.sha256(raw).hexdigest()


def in_order(numbers, what):
    """Every number first comes after all smaller ones: later ones are repetitions."""
    highest, seen = 0, set()
    for n in numbers:
        assert n in seen or n > highest, f"{what}: line {n} first came after {highest}"
        seen.add(n)
        highest = max(highest, n)


def check(options):
    lines, streams, count = {}, {}, 0
    for text in open(options.out):
        entry = json.loads(text)
        line = json.loads(entry["line"])
        n, metadata = line["n"], entry["metadata"]
        assert lines.setdefault(n, entry["line"]) == entry["line"], f"two lines are number {n}"
        streams.setdefault(entry["stream"], []).append(n)
        count += 1
        assert entry["time"] == nanos(line["time"]), f"the time of line {n}"
        assert int(metadata["n"]) == n, f"the number of line {n}"
        for field in ("user", "device", "rule", "state", "target", "close_reason", "deny_reason"):
            assert metadata.get(field) == line.get(field), f"{field} of line {n}"
        if options.kind == "loki":
            labels = {"job": "postern"} | {k: line[k] for k in ("gateway", "kind", "verdict") if k in line}
            expected = "{" + ", ".join(f'{k}="{v}"' for k, v in sorted(labels.items())) + "}"
            assert entry["stream"] == expected, f"the labels of line {n}: {entry['stream']}"
        else:
            resource = json.loads(entry["stream"])
            assert resource["service.name"] == "postern-gateway"
            assert resource["service.instance.id"] == line["gateway"]
            assert (metadata["severity"] == "WARN") >= (line.get("verdict") == "deny"), f"the severity of line {n}"
    for stream, numbers in streams.items():
        in_order(numbers, stream)
    parked = []
    if options.parked and os.path.exists(options.parked):
        for line in open(options.parked):
            n = json.loads(line)["n"]
            assert n not in lines, f"line {n} is parked and was taken"
            parked.append(n)
            lines[n] = line.rstrip("\n")
    missing = [n for n in range(1, options.head + 1) if n not in lines]
    assert not missing, f"{len(missing)} lines never came, the first is {missing[0]}"
    chain(lines[n] for n in range(1, max(lines) + 1))
    print(f"{len(lines) - len(parked)} lines, {len(parked)} parked, {count - len(lines) + len(parked)} came again")


def check_file(options):
    lines, numbers = {}, []
    for line in open(options.out):
        line = line.rstrip("\n")
        n = json.loads(line)["n"]
        assert lines.setdefault(n, line) == line, f"two lines are number {n}"
        numbers.append(n)
    in_order(numbers, options.out)
    assert max(lines) == options.head, f"the last line is {max(lines)}, not {options.head}"
    chain(lines[n] for n in range(1, options.head + 1))
    print(f"{len(lines)} lines, {len(numbers) - len(lines)} came again")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    one = verbs.add_parser("serve")
    one.add_argument("--kind", choices=["loki", "otlp"], required=True)
    one.add_argument("--port", type=int, required=True)
    for name in ("address", "cert", "key", "authorization", "trouble", "out"):
        one.add_argument(f"--{name}", required=True)
    one.add_argument("--tenant")
    one.add_argument("--refuse-n", type=int)
    one.set_defaults(run=serve)
    one = verbs.add_parser("check")
    one.add_argument("--kind", choices=["loki", "otlp"], required=True)
    one.add_argument("--head", type=int, required=True)
    one.add_argument("--parked")
    one.add_argument("out")
    one.set_defaults(run=check)
    one = verbs.add_parser("chain")
    one.add_argument("--head", type=int, required=True)
    one.add_argument("out")
    one.set_defaults(run=check_file)
    options = parser.parse_args()
    try:
        options.run(options)
    except AssertionError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
