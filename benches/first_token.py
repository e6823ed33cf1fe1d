#!/usr/bin/env python3
"""Times whole programs, this engine's and llama.cpp's in turns: load, read a prompt, give one token, end.

    benches/first_token.py --name NAME --llama SOURCES --lib FOLDER -m MODEL.gguf [-p 200] [-t 2] [-r 7]

Rows go to benches/runs/NAME.jsonl: the header of peers.py, then one for each run with `seconds` from start to end,
`peak_kb` of resident memory and `load` of the machine. SOURCES is llama.cpp's repository, FOLDER holds its libraries.
"""
import argparse
import collections
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from peers import ROOT, machine, output, without_folders
from same import build_peer


def timed(words):
    """Seconds from start to end, and the peak of resident memory in KiB."""
    begun = time.monotonic()
    child = subprocess.Popen([str(word) for word in words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    said = child.stderr.read().decode()
    _, status, usage = os.wait4(child.pid, 0)
    took = time.monotonic() - begun
    if status != 0:
        sys.exit(f"{words[0]} failed: {said.strip()}")
    return took, usage.ru_maxrss


def main():
    flags = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    flags.add_argument("--name", required=True, help="of the file in benches/runs")
    flags.add_argument("--llama", required=True, help="llama.cpp's repository")
    flags.add_argument("--lib", required=True, help="the folder of its libraries")
    flags.add_argument("--pocketlm", default=str(ROOT / "target/release/pocketlm"))
    flags.add_argument("-m", "--model", required=True)
    flags.add_argument("-p", type=int, default=200, help="tokens of the prompt")
    flags.add_argument("-t", type=int, default=os.cpu_count())
    flags.add_argument("-r", type=int, default=7)
    args = flags.parse_args()
    if os.sep in args.name:
        sys.exit("--name is a name")
    ids = ",".join(str(100 + 37 * i % 20000) for i in range(args.p))
    path = ROOT / "benches" / "runs" / f"{args.name}.jsonl"
    path.parent.mkdir(exist_ok=True)
    found = collections.defaultdict(list)
    with tempfile.TemporaryDirectory() as folder, path.open("w") as file:
        peer = build_peer(folder, args.llama, args.lib)
        commands = {
            "pocketlm": [args.pocketlm, "generate", "-m", args.model, "--device", "cpu", "-t", args.t, "-n", 1, "--ids", ids],
            "llama.cpp": [peer, args.lib, args.model, args.t, 1, ids],
        }
        header = {
            "machine": machine(),
            "commit": output("git", "-C", str(ROOT), "describe", "--always", "--dirty"),
            "commands": {engine: without_folders([str(word) for word in words]).replace(ids, f"{args.p} ids") for engine, words in commands.items()},
            "rounds": args.r,
        }
        print(json.dumps(header), file=file, flush=True)
        for number in range(args.r + 1):
            turns = list(commands.items())
            for engine, words in turns if number % 2 else reversed(turns):
                load = os.getloadavg()[0]
                seconds, peak = timed(words)
                if number == 0:
                    continue
                row = {"engine": engine, "round": number, "load": round(load, 2), "seconds": round(seconds, 4), "peak_kb": peak}
                print(json.dumps(row), file=file, flush=True)
                found[engine].append((seconds, peak))
    for engine, rows in found.items():
        seconds, peaks = zip(*rows)
        print(f"{engine:10} {statistics.median(seconds):.3f} s, {statistics.median(peaks) / 1024:.1f} MiB")


if __name__ == "__main__":
    main()
