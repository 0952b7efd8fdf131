"""Memory, looked at from outside: anonymous memory of a step, and time and memory of a whole process (Linux)."""

from __future__ import annotations

import json
import re
import select
import statistics
import subprocess
import sys
import time
from pathlib import Path

STEP = """
import sys, torch
from benchmarks import files, loaders
loader, path, kind = sys.argv[1:]
model = files.model_on_meta() if kind == "meta" else files.model()
run = loaders.LOADERS[loader]
print("ready", flush=True)
sys.stdin.readline()
run(model, path)
print("done", flush=True)
sys.stdin.readline()
"""

# A process starts with the peak memory of the one it was forked from, so a small one starts it.
SMALL_PARENT = """
import json, os, subprocess, sys, time
start = time.perf_counter()
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
_, status, usage = os.wait4(child.pid, 0)
print(json.dumps([time.perf_counter() - start, usage.ru_maxrss * 1024, status]))
"""


def extra_anonymous(loader: str, path: Path, *, kind: str = "built") -> int:
    """Peak anonymous memory while `loader` fills a model from `path`, less what there was before; in bytes."""
    command = [sys.executable, "-c", STEP, loader, str(path), kind]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        before = peak = anonymous(child.pid)
        child.stdin.write("go\n")
        child.stdin.flush()
        while peak_now := anonymous(child.pid):
            peak = max(peak, peak_now)
            if readable(child):
                break
            time.sleep(0.0005)
        assert child.stdout.readline() == "done\n"
        child.stdin.write("end\n")
    return peak - before


def anonymous(pid: int) -> int:
    """Anonymous memory of a process now, in bytes; 0 when it has gone."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) * 1024 if found else 0


def readable(child: subprocess.Popen[str]) -> bool:
    """The child has printed something."""
    assert child.stdout is not None
    return bool(select.select([child.stdout.fileno()], [], [], 0)[0])


def whole_process(command: list[str], *, rounds: int = 9) -> tuple[float, int]:
    """Median wall time in seconds and median peak memory in bytes of a command, after one run that does not count."""
    runs = []
    for _ in range(rounds + 1):
        start = [sys.executable, "-I", "-S", "-c", SMALL_PARENT, *command]
        seconds, nbytes, status = json.loads(subprocess.run(start, capture_output=True, check=True).stdout)
        if status:
            raise SystemExit(f"{' '.join(command)} ended with status {status}")
        runs.append((seconds, nbytes))
    return statistics.median(run[0] for run in runs[1:]), int(statistics.median(run[1] for run in runs[1:]))
