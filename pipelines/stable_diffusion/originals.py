"""Stable Diffusion of one file, whose tensors have the names of the original code.

diffusers translates the names. `from_single_file` of diffusers leaves a network without the tensors
that a file lacks, so the networks are filled here, and every tensor is counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memorization_suite.pipelines.part_files import fault_of_part
from memorization_suite.pipelines.single_files import UNET, VAE, SingleFile, averaged_name
from memorization_suite.pipelines.stable_diffusion import fit
from memorization_suite.pipelines.stable_diffusion.parts import told_of
from memorization_suite.pipelines.stable_diffusion.tokens import fit_tokenizer
from memorization_suite.runs.lazy import Lazy, torch
from memorization_suite.runs.notices import say
from memorization_suite.runs.weights import Report
from memorization_suite.sampling.denoiser import Unusable

if TYPE_CHECKING:
    from memorization_suite.pipelines.stable_diffusion.pipeline import MemorizationPipeline

accelerate = Lazy("accelerate")
diffusers = Lazy("diffusers")
names = Lazy("diffusers.loaders.single_file_utils")
open_clip = Lazy("open_clip.tokenizer")
safetensors = Lazy("safetensors")
transformers = Lazy("transformers")

State = dict[str, "torch.Tensor"]
# Entries of CLIP's vocabulary, which the package open_clip has; the last two begin and end a text.
CLIP_ENTRIES = 49408
ENDS = ("<|startoftext|>", "<|endoftext|>")
# How the names begin of a text encoder that open_clip trained.
OPEN_CLIP = "cond_stage_model.model."
# Tensors of a file that no network has: positions are counted, projections are not used.
NOT_USED = ("embeddings.position_ids", "text_projection.weight")


def load_original(
    file: SingleFile, kind: type[MemorizationPipeline], *, dtype: torch.dtype, tokenizer: str
) -> MemorizationPipeline:
    """The pipeline of a file, on the CPU.

    tokenizer: a folder; empty for CLIP's own. Raises Incomplete for a file that lacks tensors,
    Unusable where a tokenizer is needed, or nobody can tell what the model predicts.
    """
    made = load_tokenizer(file, tokenizer)
    networks = {part: load_part(file, part, dtype) for part in ("unet", "vae", "text_encoder")}
    pipe = kind(
        **networks,
        tokenizer=made,
        scheduler=scheduler_of(file, file.predicts),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.register_to_config(_name_or_path=str(file.path))
    fit_tokenizer(pipe)
    return pipe


def scheduler_of(file: SingleFile, predicts: str | None) -> Any:
    """The scheduler of a model that predicts this."""
    config = file.config("scheduler", predicts)
    return getattr(diffusers, config["_class_name"]).from_config(config)


# --- networks ---


def load_part(file: SingleFile, part: str, dtype: torch.dtype) -> Any:
    """A network with the tensors of the file. Raises Incomplete."""
    with told_of(f"its {part}", file.path, lambda path: f"it lies in {path}"):
        network = empty_network(file, part)
        state = converted(file, part, network, read_tensors(file, part))
        fill(network, state, f"its {part}", file.path)
        return network.to(dtype).eval()


def empty_network(file: SingleFile, part: str) -> Any:
    """The network of a part without content."""
    config = file.config(part, file.predicts)
    with accelerate.init_empty_weights():
        if part == "unet":
            return diffusers.UNet2DConditionModel.from_config(config)
        if part == "vae":
            return diffusers.AutoencoderKL.from_config(config)
        return transformers.CLIPTextModel(transformers.CLIPTextConfig(**config))


def read_tensors(file: SingleFile, part: str) -> State:
    """The tensors of a part, by their names in the file; of the UNet the averaged ones, if they are
    there: with those images are made, and the others are for training to go on.
    """
    begin = {"unet": UNET, "vae": VAE, "text_encoder": file.layout["text"]}[part]
    averaged = part == "unet" and file.is_averaged
    if averaged:
        say(f"{file.path} has its UNet twice; the averaged one (model_ema) is used")
    with safetensors.safe_open(file.path, framework="pt") as opened:
        return {
            name: opened.get_tensor(averaged_name(name) if averaged else name)
            for name in file.shapes
            if name.startswith(begin)
        }


def converted(file: SingleFile, part: str, network: Any, tensors: State) -> State:
    """The tensors by the names that the network has."""
    if part == "unet":
        state = names.convert_ldm_unet_checkpoint(tensors, network.config)
        taken = {id(tensor) for tensor in state.values()}
        return state | {key: t for key, t in tensors.items() if id(t) not in taken}
    if part == "vae":
        return names.convert_ldm_vae_checkpoint(tensors, network.config)
    if file.layout["text"] == OPEN_CLIP:
        state = names.convert_open_clip_checkpoint(network, tensors, prefix=OPEN_CLIP)
    else:
        state = names.convert_ldm_clip_checkpoint(tensors)
    state = {name.removeprefix("text_model."): tensor for name, tensor in state.items()}
    prefix = "text_model." if hasattr(network, "text_model") else ""
    return {prefix + name: state[name] for name in state if name not in NOT_USED}


def fill(network: Any, state: Mapping[str, torch.Tensor], what: str, path: Path) -> None:
    """Puts the tensors into a network. Raises Incomplete when some are missing or of another shape;
    says which are not used.
    """
    wanted = network.state_dict()
    report = Report(
        tuple(sorted(wanted.keys() - state.keys())),
        tuple(misfits(wanted, state)),
        tuple(sorted(state.keys() - wanted.keys())),
    )
    report.check(what, path)
    network.load_state_dict({name: state[name] for name in wanted}, assign=True)


def misfits(
    wanted: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]
) -> Iterator[tuple[str, list[int], list[int]]]:
    """(name, shape in the file, shape in the network) of those that differ."""
    for name in sorted(wanted.keys() & state.keys()):
        if state[name].shape != wanted[name].shape:
            yield name, list(state[name].shape), list(wanted[name].shape)


# --- the tokenizer ---


def load_tokenizer(file: SingleFile, folder: str) -> Any:
    """The tokenizer of a folder; CLIP's, where none is given and the model has CLIP's vocabulary.

    Raises Unusable where it has another, Incomplete for a folder that cannot be loaded.
    """
    entries = file.layout["text_encoder"]["vocab_size"]
    pad = file.layout["pad"]
    if not folder:
        if entries != CLIP_ENTRIES:
            raise Unusable(
                f"{file.path} has a vocabulary of {entries} entries, and no tokenizer: give its "
                "folder with --tokenizer DIR"
            )
        return clip_tokenizer(pad)
    with told_of(f"--tokenizer {folder}", Path(folder), fault_of_part):
        made = transformers.CLIPTokenizer.from_pretrained(folder)
    if made.pad_token != pad:
        say(f"--tokenizer {folder} pads captions with {made.pad_token!r}, the model's with {pad!r}")
    return made


def clip_tokenizer(pad: str) -> Any:
    """CLIP's tokenizer, from the vocabulary that comes with the package open_clip."""
    published = open_clip.SimpleTokenizer()
    entries = sorted(published.encoder, key=published.encoder.get)[: CLIP_ENTRIES - len(ENDS)]
    return transformers.CLIPTokenizer(
        vocab={entry: i for i, entry in enumerate([*entries, *ENDS])},
        merges=list(published.bpe_ranks),
        pad_token=pad,
        model_max_length=77,
    )


# --- what it predicts ---


def ask_what_it_predicts(pipe: MemorizationPipeline, file: SingleFile) -> None:
    """Gives the pipeline the scheduler and the size of what its network predicts, where the file
    does not tell. The pipeline has a schedule that ends in noise.

    Raises Unusable where the network does not tell either.
    """
    found = fit.noise_correlation(pipe)
    if found is None or fit.IS_NOT_NOISE <= found <= fit.IS_NOISE:
        shown = "it cannot be asked here" if found is None else f"correlation {found:.2f}"
        raise Unusable(
            f"{file.open_fault()}; nor does its network, by what it makes of pure noise ({shown}). "
            "Give it as a diffusers folder, whose scheduler says prediction_type"
        )
    predicts = "epsilon" if found > fit.IS_NOISE else "v_prediction"
    said = "noise" if predicts == "epsilon" else "v"
    say(
        f"{file.path} does not tell what it predicts. Its network predicts {said}: of pure noise "
        f"its output is {'that' if said == 'noise' else 'another'} (correlation {found:.2f})"
    )
    pipe.scheduler = scheduler_of(file, predicts)
    pipe.unet.register_to_config(sample_size=file.config("unet", predicts)["sample_size"])
