"""Hugging Face folders: config.json with safetensors or pytorch_model.bin, whole or in shards."""

import torch
from safetensors.torch import save_file

from tiny_models import folder, write_json


def write_safetensors(case, form="hf"):
    path = folder(case, form)
    write_json(path / "config.json", case.config)
    save_file(case.state, path / "model.safetensors", metadata={"format": "pt"})


def halves(state):
    """Two shards, cut where a layer's tensors are torn apart."""
    names = list(state)
    cut = len(names) // 2
    return [{n: state[n] for n in names[:cut]}, {n: state[n] for n in names[cut:]}]


def write_shards(case, form, stem, suffix, dtype, save):
    path = folder(case, form)
    write_json(path / "config.json", case.config | {"torch_dtype": str(dtype).removeprefix("torch.")})
    state = {k: v.to(dtype) for k, v in case.state.items()}
    weight_map = {}
    for i, shard in enumerate(halves(state), 1):
        file = f"{stem}-{i:05}-of-00002.{suffix}"
        save(shard, path / file)
        weight_map |= {name: file for name in shard}
    total = sum(v.numel() * v.element_size() for v in state.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    write_json(path / f"{stem}.{suffix}.index.json", index)


def write_safetensors_shards(case, form, dtype):
    save = lambda shard, path: save_file(shard, path, metadata={"format": "pt"})
    write_shards(case, form, "model", "safetensors", dtype, save)


def write_bin_shards(case, form, dtype):
    write_shards(case, form, "pytorch_model", "bin", dtype, torch.save)
