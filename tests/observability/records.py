"""The example log is what docs/records.schema.json says, and docs/records.md checks it.

    records.py [FILE ...]     further logs that the schema must describe, as a gateway wrote them
"""

import json
import re
import subprocess
import sys
from pathlib import Path

from jsonschema import Draft202012Validator

DOCS = Path(__file__).resolve().parents[2] / "docs"
EXAMPLE = (DOCS / "records.example.jsonl").read_bytes()


def validator() -> Draft202012Validator:
    """Stricter than what is published: a reader ignores fields that are new, we forget none."""
    schema = json.loads((DOCS / "records.schema.json").read_text())
    for kind in schema["oneOf"]:
        kind["additionalProperties"] = False
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def described(log: bytes, name: str) -> None:
    check = validator()
    lines = log.splitlines()
    assert lines, f"{name} has no line"
    for line in lines:
        record = json.loads(line)
        kinds = [kind for kind in check.schema["oneOf"] if Draft202012Validator(kind).is_valid(record)]
        assert len(kinds) == 1, f"{name}: {[k['title'] for k in kinds]} describe {line.decode()}"


def told_apart() -> None:
    """The schema refuses what is no line of ours."""
    check = validator()
    for line in EXAMPLE.splitlines():
        record = json.loads(line)
        for name in ("schema", "kind", "time", "n", "prev", "crc"):
            assert not check.is_valid({k: v for k, v in record.items() if k != name}), f"without {name}: {record}"
        assert not check.is_valid(record | {"surprise": 1})
        assert not check.is_valid(record | {"kind": "other"})
        assert not check.is_valid(record | {"prev": "0"})


def page_checks() -> None:
    """The program in docs/records.md finds each kind of change."""
    page = (DOCS / "records.md").read_text()
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)

    def run(lines: list[bytes]) -> tuple[int, str]:
        log = b"".join(line + b"\n" for line in lines)
        done = subprocess.run([sys.executable, "-c", program], input=log, capture_output=True, timeout=60)
        return done.returncode, (done.stdout + done.stderr).decode()

    lines = EXAMPLE.splitlines()
    last = json.loads(lines[-1])["n"]
    code, said = run(lines)
    assert (code, said[: len(f"whole, up to {last}:")]) == (0, f"whole, up to {last}:"), said

    middle = len(lines) // 2
    n = json.loads(lines[middle])["n"]
    changed = lines.copy()
    changed[middle] = lines[middle].replace(b'"gw"', b'"gx"')
    assert run(changed) == (1, f"line {n}: its bytes are not those that were written\n")

    import zlib

    sealed = changed[middle][: -len(b',"crc":"00000000"}')]
    changed[middle] = sealed + b',"crc":"%08x"}' % zlib.crc32(sealed)
    assert run(changed) == (1, f"line {n}: changed\n")
    assert run(lines[:middle] + lines[middle + 1 :]) == (1, f"line {n}: missing\n")


if __name__ == "__main__":
    described(EXAMPLE, "the example")
    told_apart()
    page_checks()
    lines = len(EXAMPLE.splitlines())
    for file in sys.argv[1:]:
        log = Path(file).read_bytes()
        described(log, file)
        lines += len(log.splitlines())
    print(f"{lines} lines are what the schema says; the program of the page finds every change")
