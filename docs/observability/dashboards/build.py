#!/usr/bin/env python3
"""Writes flows.json and gateway.json beside this file; `build.py --check` says whether they are up to date."""

import json
import pathlib
import sys

sys.dont_write_bytecode = True

import flows
import gateway
from parts import tidy

HERE = pathlib.Path(__file__).parent

stale = []
for name, made in (("flows", flows.build()), ("gateway", gateway.build())):
    file, content = HERE / f"{name}.json", tidy(made) + "\n"
    assert json.loads(content) == made
    if "--check" not in sys.argv[1:]:
        file.write_text(content)
    elif not file.exists() or file.read_text() != content:
        stale.append(file.name)
if stale:
    sys.exit(f"{', '.join(stale)}: not what build.py writes; change flows.py or gateway.py and run docs/observability/dashboards/build.py")
