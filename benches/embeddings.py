#!/usr/bin/env python3
"""Checks that llama.cpp and this engine embed texts alike, by each pooling.

    benches/embeddings.py --llama SOURCES --lib FOLDER -m MODEL.gguf [--pocketlm PROGRAM]

Both are given the same ids and answer with a direction; the cosine of the two is to be nearer to 1 than that of any two
different texts. Every text is held against every other too, so that a wrong pairing would show. SOURCES is llama.cpp's
repository, FOLDER holds its built libraries.
"""
import argparse
import json
import math
import sys
import tempfile
from pathlib import Path

from same import HERE, build_peer, run

TEXTS = [
    "The cat sleeps on the warm windowsill all afternoon.",
    "Quarterly revenue rose by four percent on strong demand for memory chips.",
    "fn main() { println!(\"{}\", 6 * 7); }",
]
POOLINGS = ["mean", "last", "first"]


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def main():
    flags = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    flags.add_argument("--llama", required=True, help="llama.cpp's repository")
    flags.add_argument("--lib", required=True, help="the folder of its libraries")
    flags.add_argument("-m", "--model", required=True)
    flags.add_argument("--pocketlm", default=str(HERE.parent / "target/release/pocketlm"))
    args = flags.parse_args()
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        peer = build_peer(folder, args.llama, args.lib, "embeddings")
        for pooling in POOLINGS:
            ours, theirs = [], []
            for text in TEXTS:
                answer = run(args.pocketlm, "tokenize", "-m", args.model, "--json", "-p", text)
                ids = ",".join(str(token) for token in json.loads(answer)["tokens"])
                answer = run(args.pocketlm, "embed", "-m", args.model, "--device", "cpu", "--exact", "--pooling", pooling, "--ids", ids, "--json")
                ours.append(json.loads(answer)["embedding"])
                theirs.append(json.loads(run(peer, args.lib, args.model, pooling, ids)))
            same = [cosine(a, b) for a, b in zip(ours, theirs)]
            others = [cosine(a, b) for i, a in enumerate(ours) for j, b in enumerate(theirs) if i != j]
            # By the first token alone, texts that begin alike are alike.
            says = "same" if min(same) > 0.999 and (max(others) < min(same) or pooling == "first") else "WRONG"
            wrong += says == "WRONG"
            print(f"{pooling:6} the same text {min(same):.5f} and more, another at most {max(others):.5f}: {says}", flush=True)
    sys.exit(f"{wrong} are wrong" if wrong else 0)


if __name__ == "__main__":
    main()
