#!/usr/bin/env python3
"""Runs this engine's `bench` and llama.cpp's `llama-bench` in turns and keeps every measurement.

    benches/peers.py --name NAME --llama-bench PATH -m MODEL.gguf [-p 512] [-n 128] [-d 0] [-t 2] [-r 5] [--gpu]

Each round starts both programs once, for one measurement of each test after a warm-up, and the order changes from
round to round. Rows go to benches/runs/NAME.jsonl as they come: first one with the machine, the drivers, the commits
and the commands, then one for each measurement in llama-bench's names, with `engine`, `round`, the load of the machine
before it (`load`), and `busy`: the program's processor time over its time and threads. A value well below that of a
quiet machine means that others had the cores: with --busy 0.8 a round in which either program had less is kept with
`counts` false, and another follows, four times as many as asked for at most.
"""
import argparse
import collections
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def output(*words):
    """What a program prints, or None where there is none such."""
    try:
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def without_folders(words):
    """A command as others can read it: files without where they lie on this machine."""
    return " ".join(os.path.basename(word) if os.sep in word else word for word in words)


def machine():
    lscpu = output("lscpu") or ""
    facts = dict(re.findall(r"^(Model name|CPU\(s\)|L2 cache|L3 cache|Hypervisor vendor): +(.*)$", lscpu, re.M))
    memory = re.search(r"MemTotal: +(\d+) kB", Path("/proc/meminfo").read_text()) if Path("/proc/meminfo").exists() else None
    gpus = output("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
    vulkan = output("vulkaninfo", "--summary") or ""
    drivers = re.findall(r"^\s*(deviceName|driverInfo)\s*= (.*)$", vulkan, re.M)
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": facts,
        "memory_kb": int(memory.group(1)) if memory else None,
        "nvidia": gpus.splitlines() if gpus else [],
        "vulkan": [value for _, value in drivers],
    }


def version(program):
    """What llama-bench says of itself, on whichever stream."""
    said = subprocess.run([program, "--version"], capture_output=True, text=True)
    return [line for line in (said.stdout + said.stderr).splitlines() if line.startswith(("version", "built"))]


def measure(words):
    """Runs a program: its rows, and the cores that it had on average."""
    begun, spent = time.monotonic(), os.times()
    run = subprocess.run(words, capture_output=True, text=True)
    took, now = time.monotonic() - begun, os.times()
    if run.returncode != 0:
        sys.exit(f"{words[0]} failed: {run.stderr.strip().splitlines()[-1:]}")
    cpu = now.children_user + now.children_system - spent.children_user - spent.children_system
    rows = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]
    return rows, cpu / took


def test_of(row):
    """`pp512`, `tg128 @ d512`."""
    test = f"pp{row['n_prompt']}" if row["n_prompt"] else f"tg{row['n_gen']}"
    return f"{test} @ d{row['n_depth']}" if row.get("n_depth") else test


def main():
    flags = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    flags.add_argument("--name", required=True, help="of the file in benches/runs")
    flags.add_argument("--llama-bench", required=True)
    flags.add_argument("--pocketlm", default=str(ROOT / "target/release/pocketlm"))
    flags.add_argument("-m", "--model", required=True)
    flags.add_argument("-p", default="512")
    flags.add_argument("-n", default="128")
    flags.add_argument("-d", default="0")
    flags.add_argument("-t", type=int, default=os.cpu_count())
    flags.add_argument("-r", type=int, default=5)
    flags.add_argument("--busy", type=float, default=0.0, help="the least share of the cores in a round that counts")
    flags.add_argument("--gpu", action="store_true", help="both on the GPU, llama.cpp with all layers")
    args = flags.parse_args()
    if os.sep in args.name or not Path(args.model).is_file():
        sys.exit("--name is a name, and -m a GGUF file: llama-bench knows no other")

    common = ["-m", args.model, "-p", args.p, "-n", args.n, "-d", args.d, "-t", str(args.t), "-r", "1", "-o", "jsonl"]
    commands = {
        "pocketlm": [args.pocketlm, "bench", *common, "--device", "gpu" if args.gpu else "cpu"],
        "llama.cpp": [args.llama_bench, *common, "-ngl", "99" if args.gpu else "0", *([] if args.gpu else ["-dev", "none"])],
    }
    header = {
        "machine": machine(),
        "commit": output("git", "-C", str(ROOT), "describe", "--always", "--dirty"),
        "llama.cpp": version(args.llama_bench),
        "commands": {engine: without_folders(words) for engine, words in commands.items()},
        "rounds": args.r,
    }
    path = ROOT / "benches" / "runs" / f"{args.name}.jsonl"
    path.parent.mkdir(exist_ok=True)
    rates = collections.defaultdict(lambda: collections.defaultdict(list))
    bandwidths = []
    with path.open("w") as file:
        print(json.dumps(header), file=file, flush=True)
        counted = 0
        for number in range(1, 4 * args.r + 1):
            turns, found = list(commands.items()), []
            for engine, words in turns if number % 2 else reversed(turns):
                load = os.getloadavg()[0]
                rows, cores = measure(words)
                busy = cores / args.t
                for row in rows:
                    row["model_filename"] = os.path.basename(row["model_filename"])
                    found.append({"engine": engine, "round": number, "load": round(load, 2), "busy": round(busy, 3)} | row)
                print(f"round {number}, {engine}: load {load:.1f}, busy {busy:.2f}", file=sys.stderr)
            counts = all(row["busy"] >= args.busy for row in found)
            for row in found:
                print(json.dumps({"counts": counts} | row), file=file, flush=True)
                if counts:
                    rates[test_of(row)][row["engine"]].append(row["avg_ts"])
                    bandwidths += [row["bandwidth_gb_s"]] if row.get("bandwidth_gb_s") else []
            counted += counts
            if counted == args.r:
                break
    print(f"{counted} of {number} rounds count")
    if not counted:
        sys.exit("others had the cores: try again later, or with a lower --busy")
    print(f"{'test':16} {'pocketlm':>10} {'llama.cpp':>10} {'ratio':>6}")
    for test, of in rates.items():
        ours, theirs = statistics.median(of["pocketlm"]), statistics.median(of["llama.cpp"])
        print(f"{test:16} {ours:10.2f} {theirs:10.2f} {ours / theirs:6.2f}")
    print(f"memory {statistics.median(bandwidths):.1f} GB/s; rows in {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
