"""Checkpoints of one file, as the original code of Stable Diffusion stores them: diffusers' tensors
under the original names, which are written down here by blocks.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

State = dict[str, torch.Tensor]
RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def write_original(path: Path, networks: dict[str, State], config: dict, **header: str) -> None:
    """A file of a UNet, a VAE and a text encoder. config: of the UNet. header: its metadata."""
    open_clip = header.pop("text", "") == "open_clip"
    state = original_unet(networks["unet"], config["layers_per_block"])
    state |= original_vae(networks["vae"])
    text = open_clip_text if open_clip else clip_text
    state |= text(networks["text_encoder"])
    state["alphas_cumprod"] = torch.ones(1000)  # of the code's schedule, which nobody reads
    state = {name: tensor.contiguous().clone() for name, tensor in state.items()}
    save_file(state, path, metadata=header or None)


def original_unet(state: State, layers: int) -> State:
    """Blocks are counted through; one behind the others of its size changes the size."""
    names = {}
    for name in state:
        part, _, rest = name.partition(".")
        if part == "down_blocks":
            block, kind, layer, rest = rest.split(".", 3)
            number = 1 + int(block) * (layers + 1) + int(layer)
            if kind == "downsamplers":
                number += layers
            names[name] = f"input_blocks.{number}.{inner(kind, rest)}"
        elif part == "mid_block":
            kind, layer, rest = rest.split(".", 2)
            number = 1 if kind == "attentions" else 2 * int(layer)
            names[name] = f"middle_block.{number}.{inner(kind, rest).partition('.')[2]}"
        elif part == "up_blocks":
            block, kind, layer, rest = rest.split(".", 3)
            number = int(block) * (layers + 1) + int(layer)
            if kind == "upsamplers":
                number += layers
                has_attention = f"up_blocks.{block}.attentions.0.norm.weight" in state
                names[name] = f"output_blocks.{number}.{1 + has_attention}.{rest}"
            else:
                names[name] = f"output_blocks.{number}.{inner(kind, rest)}"
        else:
            names[name] = renamed(name, ENDS)
    return {f"model.diffusion_model.{names[name]}": state[name] for name in state}


def inner(kind: str, rest: str) -> str:
    """Of a block: its place in the group, and its own names."""
    if kind == "resnets":
        return f"0.{renamed(rest, RESNET)}"
    return f"1.{rest}" if kind == "attentions" else f"0.{rest.replace('conv', 'op')}"


def original_vae(state: State) -> State:
    """Of the decoder the blocks are counted from the last one."""
    blocks = 1 + max(int(name.split(".")[2]) for name in state if ".up_blocks." in name)
    made = {}
    for name, tensor in state.items():
        words = name.split(".")
        for i, word in enumerate(words):
            if word in ("down_blocks", "up_blocks"):
                number = int(words[i + 1])
                words[i + 1] = str(blocks - 1 - number if word == "up_blocks" else number)
                words[i] = word.removesuffix("_blocks")
        new = ".".join(words).replace(".resnets.", ".block.").replace("conv_norm_out", "norm_out")
        new = new.replace("samplers.0.conv", "sample.conv").replace("conv_shortcut", "nin_shortcut")
        if ".mid_block." in name:
            end, rest = new.split(".mid_block.")
            kind, number, rest = rest.split(".", 2)
            if kind == "block":
                new = f"{end}.mid.block_{int(number) + 1}.{rest}"
            else:
                new = f"{end}.mid.attn_1.{renamed(rest, ATTENTION)}"
                if tensor.ndim == 2:
                    tensor = tensor[:, :, None, None]  # a convolution of one pixel then
        made[f"first_stage_model.{new}"] = tensor
    return made


def clip_text(state: State) -> State:
    """Of Stable Diffusion 1: the names of transformers of that time."""
    prefix = "cond_stage_model.transformer.text_model."
    made = {prefix + name.removeprefix("text_model."): tensor for name, tensor in state.items()}
    return made | {f"{prefix}embeddings.position_ids": torch.arange(77)[None]}


def open_clip_text(state: State) -> State:
    """Of Stable Diffusion 2: open_clip's names, with one layer more that is not used."""
    state = {name.removeprefix("text_model."): tensor for name, tensor in state.items()}
    prefix = "cond_stage_model.model."
    made = {
        "positional_embedding": state["embeddings.position_embedding.weight"],
        "token_embedding.weight": state["embeddings.token_embedding.weight"],
        "ln_final.weight": state["final_layer_norm.weight"],
        "ln_final.bias": state["final_layer_norm.bias"],
        "text_projection": torch.zeros_like(state["encoder.layers.0.self_attn.q_proj.weight"]),
        "logit_scale": torch.zeros(()),
    }
    for name, tensor in state.items():
        if not name.startswith("encoder.layers."):
            continue
        number, rest = name.removeprefix("encoder.layers.").split(".", 1)
        place = f"transformer.resblocks.{number}"
        if rest.startswith("self_attn.q_proj."):
            parts = [state[name.replace("q_proj", f"{which}_proj")] for which in "qkv"]
            made[f"{place}.attn.in_proj_{rest.split('.')[-1]}"] = torch.cat(parts)
        elif not rest.startswith(("self_attn.k_proj.", "self_attn.v_proj.")):
            made[f"{place}.{renamed(rest, LAYER)}"] = tensor
    return {prefix + name: tensor for name, tensor in made.items()}


def renamed(name: str, table: dict[str, str]) -> str:
    """With another beginning, if the table has it."""
    for ours, theirs in table.items():
        if name.startswith(f"{ours}."):
            return theirs + name.removeprefix(ours)
    return name


def write_header(path: Path, shapes: dict[str, list[int]], **metadata: str) -> None:
    """A file with these tensors of float16, as long as it should be, which takes no room."""
    end = 0
    header: dict = {"__metadata__": metadata} if metadata else {}
    for name, shape in shapes.items():
        size = 2 * torch.Size(shape).numel()
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    content = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(len(content).to_bytes(8, "little") + content)
        file.truncate(8 + len(content) + end)
