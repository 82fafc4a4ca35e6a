"""Stands in for any program of a ROS package: says how it was started, then waits to be ended.

What it was given goes to $RECORD/PACKAGE.EXECUTABLE.NODE.json: the command line, and the text of
parameter files. Programs that end when their work is done do so.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

ENDING = ("create", "spawner")

for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda *_: sys.exit(0))
program = Path(sys.argv[0])
words = sys.argv[1:]
node = next((w.split(":=")[1] for w in words if w.startswith("__node:=")), program.name)
files = [words[i + 1] for i, word in enumerate(words) if word == "--params-file"]
record = {
    "package": program.parent.name,
    "executable": program.name,
    "node": node,
    "words": words,
    "files": [Path(file).read_text() for file in files],
    "niceness": os.nice(0),
}
name = f"{program.parent.name}.{program.name}.{node}"
target = Path(os.environ["RECORD"]) / f"{name}.json"
target.with_suffix(".new").write_text(json.dumps(record))
target.with_suffix(".new").rename(target)
if program.name == os.environ.get("FAIL"):
    sys.exit(3)
if program.name not in ENDING:
    signal.pause()
