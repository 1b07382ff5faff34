"""Load a decoder and its tokenizer from the hub or a local folder; every error is one sentence."""

import json
import math
import re
from pathlib import Path
from typing import Any

import torch

from lightning_steer.errors import UserError
from lightning_steer.lm.families import check_family
from lightning_steer.lm.load_failures import describe, explain_failure, is_foreign

WEIGHTS = re.compile(r"[\w-][\w.-]*\.safetensors")
"""Pattern of weight file names: plain names in the folder."""
ATTENTION = (None, "eager", "sdpa", "flex_attention")
"""Implementations that need no external code; the others fall back to kernels of the hub."""


def load(
    name: str,
    dtype: str = "auto",
    revision: str | None = None,
    device_map: str | None = None,
    load_in_4bit: bool = False,
) -> tuple[Any, Any]:
    """Return ``(model, tokenizer)``, frozen; reads safetensors only, and never runs the model's own code.

    Args:
        name: a hub name or a local folder in Hugging Face form.
        dtype: ``auto`` takes the weights as they are stored, or ``float32``, ``bfloat16``, ``float16``.
        revision: branch, tag or commit on the hub.
        device_map: how one process spreads the model over its devices, for example ``auto``.
        load_in_4bit: quantise while loading; needs bitsandbytes and a GPU.

    Raises:
        ValueError: the model or its tokenizer cannot be loaded; the message gives the reason and a remedy.
    """
    check_name(name)
    if dtype not in ("auto", "float32", "bfloat16", "float16"):
        raise UserError(f"dtype is auto, float32, bfloat16 or float16, not {dtype!r}")
    if revision is not None and Path(name).is_dir():
        raise UserError(f"revision {revision!r} is of a model on the hub, and {name} is a local folder: leave it out")
    options: dict[str, Any] = {"device_map": device_map} if device_map else {}
    if load_in_4bit:
        options["quantization_config"] = _four_bit()
    loaded: Any
    config = configuration(name, revision)
    try:
        _check_index(name, revision)
        with torch.device("cpu"):  # a trainer on a GPU makes it the default, which transformers takes as a device map
            loaded = auto_class(config).from_pretrained(
                name,
                config=config,
                revision=revision,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=dtype if dtype == "auto" else getattr(torch, dtype),
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are rejected below, by name
                **options,
            )
    except ForeignFileError:
        raise
    except Exception as error:  # hub, file and format errors of four libraries; the sentence names them all
        raise UserError(explain_failure(name, revision, error)) from error
    model, info = loaded
    _check_whole(name, info)
    return model.requires_grad_(False).eval(), _tokenizer(name, revision, model.get_input_embeddings().weight.shape[0])


def configuration(name: str, revision: str | None = None) -> Any:
    """Return the configuration of a decoder that can be steered; raise ValueError with the reason and a remedy."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)
        tame(config)
    except Exception as error:
        raise UserError(explain_failure(name, revision, error)) from error
    check_family(config, name)
    return config


def auto_class(config: Any) -> Any:
    """Return the auto class for this configuration; models with images are steered in their text decoder."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, models

    auto = models.auto.modeling_auto
    if type(config) in auto.MODEL_FOR_CAUSAL_LM_MAPPING:
        return AutoModelForCausalLM
    sees = type(config) in auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    return AutoModelForImageTextToText if sees else AutoModelForCausalLM


class ForeignFileError(UserError):
    """A model refers to files outside its folder."""


def tame(config: Any) -> None:
    """Remove what a model's configuration must not decide: attention code from the hub, and other files.

    Only attention implementations of torch and transformers remain, also in parts of the
    configuration too; a name with a slash would be a repository whose compiled code is fetched and run.
    """
    vars(config).pop("transformers_weights", None)
    subconfigs = [config, *(getattr(config, name, None) for name in getattr(config, "sub_configs", {}))]
    for subconfig in subconfigs:
        if subconfig is not None and subconfig._attn_implementation not in ATTENTION:
            subconfig._attn_implementation_internal = None  # the setter would pass it on to the other parts


def _check_index(name: str, revision: str | None) -> None:
    """Raise ForeignFileError if a model's index names a file that is not a safetensors file of its folder."""
    from transformers.utils.hub import cached_file

    quiet = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    path = cached_file(name, "model.safetensors.index.json", revision=revision, **quiet)
    if path is None:
        return
    try:
        files = json.loads(Path(path).read_bytes())["weight_map"].values()
        bad_names = [str(file) for file in files if not WEIGHTS.fullmatch(str(file))]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ForeignFileError(f"model.safetensors.index.json of {name} is damaged ({describe(error)})") from error
    if bad_names:
        raise ForeignFileError(
            f"model.safetensors.index.json of {name} names {bad_names[0][:80]!r}, which is no safetensors file of its "
            "folder: take another model, or save this one again"
        )


def check_name(name: str) -> None:
    """Reject what is neither a model's folder nor a hub name, before any library looks for it."""
    folder = Path(name)
    if folder.is_file():
        raise UserError(f"{name} is a file; a model is a folder with config.json, *.safetensors and a tokenizer")
    if not name.strip() or (not folder.is_dir() and (name[0] in "./~" or name.count("/") > 1)):
        raise UserError(
            f"there is no folder {name!r}; a model is a local folder or a hub name such as openai-community/gpt2"
        )
    if folder.is_dir() and not (folder / "config.json").is_file():
        if (folder / "adapter_config.json").is_file():
            raise UserError(f"{name} holds an adapter, not a whole model: merge it into its model and save that")
        raise UserError(f"{name} has no config.json: a model is saved with model.save_pretrained")


def _check_whole(name: str, info: dict[str, Any]) -> None:
    """Reject a model with missing tensors, which transformers would initialise at random with a warning."""
    if info["mismatched_keys"]:
        tensor, saved, expected = min(info["mismatched_keys"])
        raise UserError(
            f"{tensor} of {name} is {list(saved)} in its file, and {list(expected)} by its config.json: these are of "
            "two models"
        )
    if info["missing_keys"]:
        raise UserError(
            f"the weights of {name} are incomplete: {len(info['missing_keys'])} tensors such as "
            f"{min(info['missing_keys'])} are in none of its files: download or save it again"
        )


def load_tokenizer(name: str, revision: str | None = None) -> Any:
    """Return only the tokenizer of a model; raise ValueError with the reason and what to do."""
    check_name(name)
    return _tokenizer(name, revision)


def _tokenizer(name: str, revision: str | None, embedded: float = math.inf) -> Any:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=False)
    except Exception as error:
        if is_foreign(str(error)):
            raise UserError(explain_failure(name, revision, error)) from error
        raise UserError(
            f"{name} has no tokenizer that can be loaded ({describe(error)}): save one beside the model"
        ) from error
    if tokenizer.vocab_size == 0:
        raise UserError(f"{name} has no tokenizer: save one beside the model with tokenizer.save_pretrained")
    if tokenizer.vocab_size > embedded:  # special tokens added later may lie beyond if they are not used
        raise UserError(
            f"the tokenizer of {name} has {tokenizer.vocab_size} tokens, and the model embeds {embedded}: it is "
            "another model's"
        )
    return tokenizer


def _four_bit() -> Any:
    try:
        import bitsandbytes  # noqa: F401  # pyright: ignore[reportMissingImports]
        from transformers import BitsAndBytesConfig
    except ImportError as error:
        raise UserError("load_in_4bit needs bitsandbytes: pip install bitsandbytes") from error
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.bfloat16)
