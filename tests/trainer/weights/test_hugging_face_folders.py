"""Folders and caches of Hugging Face: whole or in shards, and what lacks is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from tests.trainer.weights.public_weights import State, columns
from trainer.config import ModelConfig, UserError
from trainer.files.file_digest import file_digest
from trainer.training.networks import load_network
from trainer.weights import load_weights


def hugging_face_folder(state: State, folder: Path, shards: int, kind: str = "model.safetensors") -> Path:
    """A folder as `save_pretrained` writes it."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    write = safetensors.torch.save_file if kind.endswith("safetensors") else torch.save
    if shards == 1:
        write({name: tensor.clone() for name, tensor in state.items()}, folder / kind)
        return folder
    stem, suffix = kind.split(".")
    files = {name: f"{stem}-{i % shards + 1:05}-of-{shards:05}.{suffix}" for i, name in enumerate(state)}
    for file in set(files.values()):
        write({name: tensor.clone() for name, tensor in state.items() if files[name] == file}, folder / file)
    (folder / f"{kind}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("shards", [1, 3])
def test_a_folder_of_hugging_face(shards, kind, source, tmp_path):
    original = source("segformer_tiny")
    theirs = columns("hugging_face_4")(original.state_dict())
    cache = tmp_path / "models--nvidia--mit"
    folder = hugging_face_folder(theirs, cache / "snapshots" / "0123", shards, kind)
    index = [folder / f"{kind}.index.json"] if shards > 1 else []
    for path in (folder, cache, *index):
        model = load_network(ModelConfig(name="segformer_tiny"), path, 20)
        assert all(torch.equal(tensor, original.state_dict()[name]) for name, tensor in model.state_dict().items())
        assert file_digest(path) == file_digest(folder)
    before = file_digest(folder)
    shard = sorted(
        path for path in folder.iterdir() if path.name.startswith(kind.split(".")[0]) and path.suffix != ".json"
    )[0]
    if shards == 1:
        assert before == file_digest(shard)
        return
    with pytest.raises(UserError, match=r"does not fit the network: .* missing"):
        load_network(ModelConfig(name="segformer_tiny"), shard, 20)
    shard.unlink()
    for use in (file_digest, lambda path: load_network(ModelConfig(name="segformer_tiny"), path, 20)):
        with pytest.raises(UserError, match=f"names {shard.name}, which is not beside it; download all 3 shards"):
            use(folder)


@pytest.mark.parametrize(
    "index", ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": "../x.bin"}}', "[" * 100_000]
)
def test_a_list_of_shards_that_is_none(index, tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(UserError, match="is no list of shards"):
        file_digest(tmp_path)


def test_a_folder_without_weights(source, tmp_path):
    with pytest.raises(UserError, match=r"is a folder without model.safetensors or pytorch_model.bin; give a file"):
        load_weights(source("segformer_tiny"), tmp_path, what="all")
