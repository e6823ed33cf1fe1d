#!/usr/bin/env python3
"""What each format costs and keeps: a model quantized by pocketlm and by llama.cpp to the same formats, tensor by tensor.

For each type, llama.cpp's quantizer makes a file; pocketlm makes one with the same format for each tensor (`--like`). With
a calibration text both do so again, weighing errors by it (llama.cpp by its `llama-imatrix`). Perplexity of all is measured
by pocketlm over the first windows of a text, so that only the weights differ; then, in rounds, how fast each of pocketlm's
files decodes. Prints a Markdown table and writes the rows as JSON. What is in `--folder` already is not made again: so the
perplexities may be taken on a busy machine, and the speeds on a quiet one.

    benches/formats.py --pocketlm target/release/pocketlm --llama …/bin -m MODEL.gguf \\
        --text wikitext2-valid.txt --calibrate long.txt --folder formats -o rows.json
"""

import argparse
import json
import os
import statistics
import subprocess

TYPES = [
    "F16", "BF16", "Q8_0", "Q6_K", "Q5_1", "Q5_K_M", "Q5_0", "Q4_1", "Q4_K_M", "IQ4_NL", "Q4_0", "IQ4_XS", "Q3_K_M", "IQ3_S",
    "IQ3_XXS", "Q2_K", "IQ2_S", "IQ2_XS", "IQ2_XXS", "TQ2_0", "TQ1_0", "IQ1_M", "IQ1_S", "MXFP4", "NVFP4", "Q2_0", "Q1_0",
]
# Types that llama.cpp's quantizer has no name for: every matrix of the layers in it.
ONLY_TENSORS = {"MXFP4": "Q8_0", "NVFP4": "Q8_0"}
TOKENS = 16384


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: {done.stderr[-500:]}")
    return done.stdout


def windows(pocketlm, model, text, count, window, out):
    """Writes the beginning of a text that has exactly so many windows."""
    with open(text, encoding="utf-8") as file:
        whole = file.read(8 * count * window)

    def tokens(length):
        with open(out, "w", encoding="utf-8") as file:
            file.write(whole[:length])
        return len(json.loads(run(pocketlm, "tokenize", "-m", model, "--json", "-f", out))["tokens"])

    low, high = 0, len(whole)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if tokens(middle) < count * window + 8 else (low, middle)
    tokens(low)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pocketlm", default="target/release/pocketlm")
    parser.add_argument("--llama", required=True, help="the folder of llama-quantize and llama-imatrix")
    parser.add_argument("-m", "--model", required=True)
    parser.add_argument("--text", required=True)
    parser.add_argument("--calibrate", required=True)
    parser.add_argument("--windows", type=int, default=20)
    parser.add_argument("--types", default=",".join(TYPES))
    parser.add_argument("--folder", required=True, help="keeps the files")
    parser.add_argument("--rounds", type=int, default=0, help="how often speed is measured")
    parser.add_argument("-o", "--out", required=True)
    args = parser.parse_args()
    os.makedirs(args.folder, exist_ok=True)
    within = lambda name: os.path.join(args.folder, name)
    text, imatrix = within("text"), within("imatrix.gguf")
    if not os.path.exists(text):
        windows(args.pocketlm, args.model, args.text, args.windows, 512, text)
    if not os.path.exists(imatrix):
        run(os.path.join(args.llama, "llama-imatrix"), "-m", args.model, "-f", args.calibrate, "-o", imatrix, "-c", "512",
            "--chunks", str(TOKENS // 512), "--process-output")
    rows = json.load(open(args.out, encoding="utf-8")) if os.path.exists(args.out) else {}

    def kept():
        with open(args.out, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1)

    def perplexity(model):
        report = json.loads(run(args.pocketlm, "perplexity", "--json", "-m", model, "-f", text, "--device", "cpu"))
        assert report["chunks"] == args.windows, report
        return report["perplexity"]

    def theirs(kind, *more):
        name = ONLY_TENSORS.get(kind, kind)
        only = ["--tensor-type", f"blk={kind.lower()}"] if kind in ONLY_TENSORS else []
        command = [os.path.join(args.llama, "llama-quantize"), "--allow-requantize", *only, *more, args.model, within("theirs.gguf"), name]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def ours(file, *more):
        command = ["quantize", args.model, within(file), "--like", within("theirs.gguf"), "--json", *more]
        return json.loads(run(args.pocketlm, *command))

    def measured(kind):
        row = {}
        if theirs(kind):
            row["llama.cpp"] = perplexity(within("theirs.gguf"))
            report = ours(f"{kind}.gguf")
            row["pocketlm"] = perplexity(within(f"{kind}.gguf"))
        if theirs(kind, "--imatrix", imatrix):
            row["llama.cpp, imatrix"] = perplexity(within("theirs.gguf"))
            file = f"{kind}.gguf" if "pocketlm" not in row else "calibrated.gguf"
            report = ours(file, "--calibrate", args.calibrate, "--calibrate-tokens", str(TOKENS))
            row["pocketlm, calibrated"] = perplexity(within(file))
        if not row:
            # llama.cpp makes no such file of this model: pocketlm's own recipe stands alone.
            report = json.loads(run(args.pocketlm, "quantize", args.model, within(f"{kind}.gguf"), "--to", kind, "--json"))
            row["pocketlm"] = perplexity(within(f"{kind}.gguf"))
        return row | {"bits": report["bits_per_weight"], "bytes": report["bytes"]}

    if "the model" not in rows:
        rows["the model"] = {"pocketlm": perplexity(args.model)}
    kinds = args.types.split(",")
    for kind in kinds:
        if kind not in rows:
            rows[kind] = measured(kind)
            print(kind, rows[kind], flush=True)
            kept()
    samples = {kind: [] for kind in kinds}
    for _ in range(args.rounds):
        for kind in kinds:
            bench = ["bench", "-m", within(f"{kind}.gguf"), "-p", "128", "-n", "32", "-r", "1", "--device", "cpu", "--json"]
            samples[kind].append([test["median_tok_s"] for test in json.loads(run(args.pocketlm, *bench))["tests"]])
    for kind in kinds if args.rounds else []:
        rows[kind]["prompt"], rows[kind]["decode"] = (statistics.median(column) for column in zip(*samples[kind]))
    kept()

    print(f"\nthe model itself: {rows['the model']['pocketlm']:.4f}\n")
    print("| type | bits | MiB | llama.cpp | pocketlm | ratio | with imatrix | calibrated | ratio | prompt | decode |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for kind in kinds:
        row = rows[kind]
        number = lambda key: f"{row[key]:.4g}" if key in row else ""
        ratio = lambda a, b: f"{row[b] / row[a]:.4f}" if a in row else ""
        pair = lambda a, b: f"{number(a)} | {number(b)} | {ratio(a, b)}"
        speed = lambda key: f"{row[key]:.0f}" if key in row else ""
        print(f"| {kind} | {row['bits']:.3f} | {row['bytes'] / 2**20:.1f} | {pair('llama.cpp', 'pocketlm')} | "
              f"{pair('llama.cpp, imatrix', 'pocketlm, calibrated')} | {speed('prompt')} | {speed('decode')} |")


if __name__ == "__main__":
    main()
