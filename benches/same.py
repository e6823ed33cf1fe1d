#!/usr/bin/env python3
"""Checks that llama.cpp and this engine compute the same from what `pocketlm synth` writes.

    benches/same.py --llama SOURCES --lib FOLDER [--pocketlm PROGRAM] [--preset llama-3.2-1b] [FORMAT …]

For each format: a model of two layers, the same ids to both, and the likeliest next token of both must be the same,
unless the two likeliest stand nearer to each other than activations of 8 bits can tell. Before that, two models of
different seeds must be told apart. SOURCES is llama.cpp's repository, FOLDER holds its built libraries.
"""
import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROMPTS = ["128254,76,262,32,99,97,116", "5,50,500,5000,7,7,7,1,2,3,4,90,91,92", "300"]
# Rounded to 8 bits, the values of a block of 32 (the largest is about 2.3 deviations) err by 2.3 / (127 · √12) of a
# deviation; a logit, of deviation 1, stands at the end of 9 such products, and two of them make a gap: four deviations.
NEAR = 4 * (2 * 9) ** 0.5 * 2.3 / (127 * 12**0.5)


def run(*words):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{words[0]} failed: {done.stderr.strip()}")
    return done.stdout


def build_peer(folder, sources, libraries, name="next_tokens"):
    """Builds a program of llama.cpp's interface into `folder`."""
    peer = Path(folder) / name
    include = [f"-I{sources}/include", f"-I{sources}/ggml/include"]
    link = [f"-L{libraries}", "-lllama", "-lggml", "-lggml-base", f"-Wl,-rpath,{libraries}"]
    run("c++", "-O2", "-std=c++17", HERE / f"{name}.cpp", *include, *link, "-o", peer)
    return peer


def verdict(theirs, ours):
    gap, own_gap = theirs[0][1] - theirs[1][1], ours[0][1] - ours[1][1]
    if [token for token, _ in theirs] == [token for token, _ in ours]:
        return "same" if abs(gap - own_gap) < NEAR else "WRONG"
    if theirs[0][0] == ours[0][0]:
        return "same"
    return "too near to tell" if gap < NEAR and theirs[1][0] == ours[0][0] else "WRONG"


def main():
    flags = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    flags.add_argument("--llama", required=True, help="llama.cpp's repository")
    flags.add_argument("--lib", required=True, help="the folder of its libraries")
    flags.add_argument("--pocketlm", default=str(HERE.parent / "target/release/pocketlm"))
    flags.add_argument("--preset", default="llama-3.2-1b")
    flags.add_argument("formats", nargs="*", default="f32 f16 bf16 q4_0 q4_1 q5_0 q5_1 q8_0 q4_k q6_k".split())
    args = flags.parse_args()
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        peer, model = build_peer(folder, args.llama, args.lib), Path(folder) / "model.gguf"

        def synth(name, seed):
            run(args.pocketlm, "synth", args.preset, "--to", name, "--layers", "2", "--seed", seed, model)

        def their_next(ids):
            return json.loads(run(peer, args.lib, model, 0, 2, ids))

        def our_next(ids):
            score = run(args.pocketlm, "score", "-m", model, "--device", "cpu", "--ids", ids, "--top", 2, "--json")
            return json.loads(score)["positions"][-1]["top"]

        synth(args.formats[0], 2)
        planted = their_next(PROMPTS[0])
        for name in args.formats:
            synth(name, 1)
            for ids in PROMPTS:
                theirs, ours = their_next(ids), our_next(ids)
                if planted:
                    if verdict(planted, ours) != "WRONG":
                        sys.exit("the models of two seeds cannot be told apart")
                    planted = None
                says = verdict(theirs, ours)
                wrong += says == "WRONG"
                gaps = [f"{top[0][0]:6} by {top[0][1] - top[1][1]:.3f}" for top in (theirs, ours)]
                print(f"{name:6} {len(ids.split(',')):3} ids: {gaps[0]}, here {gaps[1]}: {says}", flush=True)
    sys.exit(f"{wrong} are wrong" if wrong else 0)


if __name__ == "__main__":
    main()
