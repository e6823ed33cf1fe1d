#!/usr/bin/env python3
"""What each format costs and keeps: a model quantized by pocketlm and by llama.cpp to the same formats, tensor by tensor.

For each type, llama.cpp's quantizer makes a file; pocketlm makes one with the same format for each tensor (`--like`), with
and without a calibration text. Perplexity of all three is measured by pocketlm over the first windows of a text, so that
only the weights differ. Prints a Markdown table and writes the rows as JSON.

    benches/formats.py --pocketlm target/release/pocketlm --llama-quantize …/llama-quantize -m MODEL.gguf \\
        --text wikitext2-valid.txt --calibrate long.txt -o rows.json
"""

import argparse
import json
import os
import subprocess
import tempfile

TYPES = [
    "Q8_0", "Q6_K", "Q5_1", "Q5_K_M", "Q5_0", "Q4_1", "Q4_K_M", "IQ4_NL", "Q4_0", "IQ4_XS", "Q3_K_M", "IQ3_S", "Q2_K",
    "TQ2_0", "TQ1_0",
]


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
    parser.add_argument("--llama-quantize", required=True)
    parser.add_argument("-m", "--model", required=True)
    parser.add_argument("--text", required=True)
    parser.add_argument("--calibrate")
    parser.add_argument("--windows", type=int, default=20)
    parser.add_argument("--types", default=",".join(TYPES))
    parser.add_argument("-o", "--out")
    args = parser.parse_args()
    folder = tempfile.mkdtemp()
    text = os.path.join(folder, "text")
    windows(args.pocketlm, args.model, args.text, args.windows, 512, text)

    def perplexity(model):
        report = json.loads(run(args.pocketlm, "perplexity", "--json", "-m", model, "-f", text, "--device", "cpu"))
        assert report["chunks"] == args.windows, report
        return report["perplexity"]

    def speed(model):
        report = json.loads(run(args.pocketlm, "bench", "-m", model, "-p", "0", "-n", "32", "-r", "3", "--device", "cpu", "--json"))
        return report["tests"][0]["median_tok_s"]

    def quantized(like, *more):
        out = os.path.join(folder, "ours.gguf")
        report = json.loads(run(args.pocketlm, "quantize", args.model, out, "--like", like, "--json", *more))
        return out, report

    base = perplexity(args.model)
    print(f"the model itself: {base:.4f}\n")
    print("| type | bits per weight | MiB | llama.cpp | pocketlm | ratio | calibrated | ratio | tok/s |")
    print("|---|---|---|---|---|---|---|---|---|")
    rows = []
    for kind in args.types.split(","):
        theirs = os.path.join(folder, "theirs.gguf")
        run(args.llama_quantize, "--allow-requantize", args.model, theirs, kind)
        row = {"type": kind, "llama.cpp": perplexity(theirs)}
        ours, report = quantized(theirs)
        row |= {"bits": report["bits_per_weight"], "bytes": report["bytes"], "pocketlm": perplexity(ours), "tok_s": speed(ours)}
        if args.calibrate:
            ours, _ = quantized(theirs, "--calibrate", args.calibrate, "--calibrate-tokens", "16384")
            row["calibrated"] = perplexity(ours)
        rows.append(row)
        ratio = lambda key: f"{row[key]:.4f} | {row[key] / row['llama.cpp']:.4f}" if key in row else "| "
        print(f"| {kind} | {row['bits']:.3f} | {row['bytes'] / 2**20:.1f} | {row['llama.cpp']:.4f} | {ratio('pocketlm')} | "
              f"{ratio('calibrated')} | {row['tok_s']:.0f} |", flush=True)
    if args.out:
        with open(args.out, "w", encoding="utf-8") as file:
            json.dump({"model": os.path.basename(args.model), "perplexity": base, "windows": args.windows, "rows": rows}, file, indent=1)


if __name__ == "__main__":
    main()
