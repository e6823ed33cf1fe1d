"""Writes the seeds of the corpora from the fixtures: small ones, so that every byte of them can be reached.

    python3 fuzz/seeds.py       (numpy 2.4.6, gguf 0.19.0)
"""

import json
import struct
from pathlib import Path

import gguf
import numpy as np

HERE = Path(__file__).resolve().parent
FIXTURES = HERE.parent / "tests/fixtures"


def put(target, name, content):
    folder = HERE / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)


def tiny_gguf(arch, vocabulary):
    """A model of one layer, 8 wide, whose tensors are smaller than its metadata."""
    path = HERE / "corpus/gguf" / f"{arch}-{vocabulary}"
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, arch)
    writer.add_context_length(64)
    writer.add_embedding_length(8)
    writer.add_block_count(1)
    writer.add_feed_forward_length(8)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    words = ["<unk>", "<s>", "</s>", "\u2581a", "b", "ab", "\u0120a", "c", "<0x41>", "<|im_end|>"]
    writer.add_tokenizer_model(vocabulary)
    writer.add_token_list(words)
    writer.add_token_types([2, 3, 3, 1, 1, 1, 1, 1, 6, 3])
    if vocabulary == "gpt2":
        writer.add_tokenizer_pre("llama-bpe")
        writer.add_token_merges(["a b"])
    else:
        writer.add_token_scores([-float(i) for i in range(len(words))])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template("{% for m in messages %}{{ m.content }}{% endfor %}")
    shapes = {"token_embd": (10, 8), "output_norm": (8,), "blk.0.attn_norm": (8,), "blk.0.attn_q": (8, 8)}
    shapes |= {"blk.0.attn_k": (4, 8), "blk.0.attn_v": (4, 8), "blk.0.attn_output": (8, 8), "blk.0.ffn_norm": (8,)}
    shapes |= {"blk.0.ffn_gate": (8, 8), "blk.0.ffn_up": (8, 8), "blk.0.ffn_down": (8, 8)}
    for name, shape in shapes.items():
        kind = np.float32 if len(shape) == 1 else np.float16
        writer.add_tensor(f"{name}.weight", np.zeros(shape, kind))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def tiny_safetensors(tensors):
    header, data = {}, b""
    for name, (kind, shape, size) in tensors.items():
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [len(data), len(data) + size]}
        data += bytes(size)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


tiny_gguf("llama", "llama")
tiny_gguf("qwen2", "gpt2")
for path in sorted((FIXTURES / "split").glob("*.gguf")):
    put("gguf", path.stem, path.read_bytes())

put("safetensors", "two", tiny_safetensors({"a": ("F32", [2, 2], 16), "b.weight": ("BF16", [3], 6)}))
put("safetensors", "odd", tiny_safetensors({"w": ("F8_E4M3", [2, 3], 6), "s": ("F32", [], 4), "u": ("U8", [0], 0)}))
put("safetensors", "index", (FIXTURES / "hf/sharded/model.safetensors.index.json").read_bytes())

for name in ["whole", "types", "strided", "legacy"]:
    content = (FIXTURES / f"pth/{name}.pth").read_bytes()
    put("pickle", name, content)
    if content[:2] == b"PK":
        at = content.index(b"\x80\x02")
        put("pickle", f"{name}-bare", content[at : content.index(b"PK", at)])

for folder in ["archs", "forms", "pth", "tq", "hf"]:
    for path in sorted((FIXTURES / folder).glob("**/*config.json")):
        if path.name in ("config.json", "hf_quant_config.json"):
            put("config", "-".join(path.relative_to(FIXTURES).parts[:-1]), path.read_bytes())

put("tokenizer", "json", b"\0" + (FIXTURES / "archs/qwen3/tokenizer.json").read_bytes())
put("tokenizer", "unigram", b"\1" + (FIXTURES / "tokenizers/unknown.model").read_bytes())
put("tokenizer", "pieces", b"\1" + (FIXTURES / "tokenizers/llama2.model").read_bytes()[:1500])
put("tokenizer", "tiktoken", b"\2" + b"".join(b"%s %d\n" % (t, i) for i, t in enumerate([b"AA==", b"AQ==", b"YQ==", b"YWI=", b"Yg=="])))

TEMPLATES = [
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] | trim }}{% if loop.last %}x{% endif %}{% endfor %}",
    "{%- macro t(x, n=2) -%}{{ x * n }}{%- endmacro -%}{%- set ns = namespace(a=0) -%}{% for i in range(3) %}{% set ns.a = ns.a + i %}{{ t(i) }}{% endfor %}{{ ns.a }}",
    "{{ bos_token }}{{ messages | tojson(indent=2) }}{{ strftime_now('%d %b %Y') }}{{ raise_exception('no') if false }}",
    "{% set x = ['a', 'b'] %}{{ x | join(',') | upper | replace('A', 'c') }}{{ x[::-1] }}{{ 'a b'.split() }}{{ 'x'.strip().startswith('x') }}",
    "{% for k, v in messages[0] | items %}{{ k ~ v | length }}{% continue %}{% endfor %}{% generation %}{{ eos_token }}{% endgeneration %}",
]
for number, template in enumerate(TEMPLATES):
    put("template", str(number), template.encode())

put("messages", "plain", json.dumps([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": None}]).encode())
call = {"function": {"name": "f", "arguments": {"a": [1, 2.5, None, True]}}}
parts = [{"role": "user", "content": [{"type": "text", "text": "a"}]}, {"role": "tool", "tool_calls": [call]}]
put("messages", "parts", json.dumps(parts + [{"tools": [call]}]).encode())

head = bytes(32) + struct.pack("<I3I", 3, 1, 2, 3)
put("session", "bare", head + struct.pack("<Q", 0) + b"\0\0")
said = json.dumps([{"role": "user", "content": "Hi"}]).encode()
answer = struct.pack("<BIBQ", 1, 1, 1, 7)
kv = b"\1" + bytes(32) + struct.pack("<IQ", 3, 8) + bytes(8)
put("session", "all", head + struct.pack("<Q", len(said)) + said + answer + kv)

manifest = {"pocketlm_manifest": 1, "chunk_bytes": 1024, "files": [{"name": "a/b.gguf", "bytes": 1500, "chunks": ["0" * 64, "af" * 32]}]}
put("manifest", "sound", json.dumps(manifest).encode())
