"""Rewrites CALDERA's pickled layers to the layout `qlr` (docs/qlr.md).

    python3 tools/qlr_from_caldera.py BASE OUT quant_layer_0.pt quant_layer_1.pt ...

BASE is the folder of the model that was compressed, in safetensors: what is no compressed linear (embedding, norms, head) and
`config.json` come from there. The layers, in order, are what CALDERA's scripts save with torch.save: whole nn.Module objects.
So this runs only where the packages that made them can be imported (caldera and quip-sharp, with their CUDA extension). Unpickling
runs code: use files that you trust.

A compressed linear is any module with SU, SV, Q and global_scale. Its factors are asked for their numbers by the product with an
identity, whatever packing they are in; where Q is of points of E8P they are turned back into codes, exactly, over a table of the
patterns that occur. Factors of more bits (E8P with residuals) become fp16, and so do L and R.

Written from the mathematics and the names of public attributes. It was run only on the stand-in that
`tools/fixtures/caldera_stand_in.py` makes, never on a checkpoint of the original package.
"""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save_file

SLOTS = [0, 4, 1, 5, 2, 6, 3, 7]
CODEC = {"codec": "e8p16"}


def numbers(factor):
    """A factor as a dense float64 matrix."""
    if isinstance(factor, torch.Tensor):
        return factor.detach().double().cpu().numpy()
    device = next((buffer.device for buffer in factor.buffers()), "cpu")
    identity = torch.eye(factor.in_features, dtype=torch.float32, device=device)
    with torch.no_grad():
        return factor(identity, float_precision=True).T.double().cpu().numpy()


class Table:
    """The patterns of absolute values that occur, at most 256 in a matrix."""

    def __init__(self, points):
        self.patterns = np.unique(np.abs(points).reshape(-1, 8), axis=0)
        if len(self.patterns) > 256:
            raise ValueError(f"{len(self.patterns)} patterns of absolute values: these are no points of E8P")
        # An even number of signs is of an even sum again, as points of E8 have it.
        self.odd = self.patterns.sum(1) % 2 == 1

    def words(self):
        values = self.patterns.copy()
        values[self.odd, 7] *= -1
        nibbles = np.full((256, 8), 9)
        nibbles[: len(values), SLOTS] = 2 * values + 8
        return (nibbles << (4 * np.arange(8))).sum(1).astype(np.uint32)

    def codes(self, points, below):
        rows = points.reshape(-1, 8)
        index = (np.abs(rows)[:, None, :] == self.patterns[None]).all(-1).argmax(1) if len(rows) < 4096 else self.search(rows)
        signs = (rows < 0).astype(int)
        signs[:, 7] ^= self.odd[index]
        stored = np.zeros_like(signs)
        stored[:, SLOTS] = signs
        if (stored.sum(1) % 2).any():
            raise ValueError("a point of an odd sum is not of E8")
        stored[:, 0] ^= below.reshape(-1)
        codes = (index << 8) + (stored << np.arange(8)).sum(1)
        return codes.astype(np.uint16).reshape(len(points), -1)

    def search(self, rows):
        key = lambda x: (2 * np.abs(x)).astype(np.int64) @ (16 ** np.arange(8))
        patterns = key(self.patterns)
        order = np.argsort(patterns)
        return order[np.searchsorted(patterns[order], key(rows))]


def lattice(dense, scale):
    """Codes and table of points of E8 + 1/4 or E8 − 1/4."""
    quarters = np.round(4 * dense / scale).astype(int)
    if np.abs(4 * dense / scale - quarters).max() > 0.05 or (quarters % 2 == 0).any():
        raise ValueError("the numbers are not odd multiples of a quarter: these are no points of E8P")
    eights = quarters.reshape(len(quarters), -1, 8)
    below = eights[..., 0] % 4 == 1
    if ((eights % 4 == 1) != below[..., None]).any():
        raise ValueError("a point is shifted by a quarter in some elements only")
    points = (eights + np.where(below, 1, -1)[..., None]) / 4
    table = Table(points)
    return table.codes(points.reshape(len(points), -1), below), table.words()


def linear(module, name):
    """Tensors and settings of one compressed linear."""
    half = lambda x: np.ascontiguousarray(x, dtype=np.float16)
    vector = lambda x: x.detach().double().cpu().numpy().reshape(-1)
    single = lambda x: np.array([x], dtype=np.float32)
    su, sv, tensors, spec = vector(module.SU), vector(module.SV) * float(module.global_scale), {}, {}
    if module.scaleWH is not None:
        su, sv = su / vector(module.scaleWH), sv * vector(module.scaleWH)
    if module.Q.codebook_version == "E8P12":
        codes, table = lattice(numbers(module.Q), float(module.Q.scale))
        tensors |= {"base.codes": codes, "base.table": table, "base.scales": single(float(module.Q.scale))}
        spec["base"] = CODEC
    else:
        tensors["base"] = half(numbers(module.Q))
        spec["base"] = {"codec": "fp16"}
    pairs = [(module.L, module.R)] if module.L is not None else []
    if module.ft_rank > 0:
        pairs.append((module.L_ft, module.R_ft))
    spec["lr"] = None
    if pairs:
        left = np.concatenate([numbers(l) for l, _ in pairs], 1)
        right = np.concatenate([numbers(r) for _, r in pairs], 0)
        tensors |= {"lr.l": half(left.T), "lr.r": half(right)}
        spec["lr"] = {"rank": len(right), "scale": 1.0}
    # The input takes the transpose of its transform.
    for side, table, order in [("pre", module.had_left.T, module.K_left), ("post", module.had_right, module.K_right)]:
        if order > 1:
            tensors[f"{side}.had_table"] = half(table.detach().cpu().numpy())
    tensors |= {"pre.su": su.astype(np.float32), "post.sv": sv.astype(np.float32)}
    spec |= {"pre": ["mul:su", "had"], "post": ["had", "mul:sv"]}
    return {f"{name}.{key}": tensor for key, tensor in tensors.items()}, spec


def is_compressed(module):
    return all(hasattr(module, name) for name in ("SU", "SV", "Q", "global_scale"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("layers", type=Path, nargs="+")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    tensors, specs = {}, {}
    for index, path in enumerate(args.layers):
        layer = torch.load(path, map_location="cpu", weights_only=False)
        for inner, module in layer.named_modules():
            if is_compressed(module):
                name = f"model.layers.{index}.{inner}"
                more, specs[name] = linear(module, name)
                tensors |= more
    for path in sorted(args.base.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():
                if name.removesuffix(".weight") not in specs:
                    # float32 holds every bfloat16, and numpy has no such type.
                    tensor = file.get_tensor(name)
                    tensors[name] = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    config = json.loads((args.base / "config.json").read_text())
    escaped = {name.replace(".", r"\."): spec for name, spec in specs.items()}
    config["quantization_config"] = {"quant_method": "qlr", "version": 1, "default": {}, "modules": escaped}
    (args.out / "config.json").write_text(json.dumps(config, indent=1))
    save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, args.out / "model.safetensors")
    for path in args.base.iterdir():
        if path.name.startswith(("tokenizer", "generation_config", "chat_template")):
            shutil.copy(path, args.out / path.name)


if __name__ == "__main__":
    main()
