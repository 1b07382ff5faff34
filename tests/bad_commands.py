"""Commands that work, for bad input to be added to; and the cases that a table of settings makes of them."""

import re
from collections.abc import Mapping, Sequence

from bad_input import Case

TINY = tuple(f"--data.init_args.{k}={v}" for k, v in {"attributes": 6, "values": 4, "dimensions": 4}.items())
LLM = ("--model.init_args.backbone.init_args.llm", "decoder", "--trainer.enable_progress_bar=false")
METHOD = ("--config", "configs/methods/mean_difference.yaml")
BASES = {
    "toy": ("fit", "--config", "configs/toy.yaml", "--run=network", *TINY),
    "steer": ("fit", "--config", "configs/steer_toy.yaml", *METHOD, *TINY),
    "behaviour": ("fit", "--config", "configs/steer_behaviour.yaml", *METHOD, *LLM),
    "stereoset": ("fit", "--config", "configs/steer_stereoset.yaml", *METHOD, *LLM),
    "mera": ("fit", "--config", "configs/steer_mera.yaml", "--config", "configs/methods/mera.yaml", *LLM),
    "probe": ("fit", "--config", "configs/probe.yaml", *LLM),
    "sae": ("fit", "--config", "configs/sae.yaml", *LLM),
    "pocket": ("fit", "--config", "configs/pocket.yaml"),
    "responses": ("predict", "--config", "configs/responses.yaml", *LLM, "--data.init_args.file", "prompts.txt"),
    "cache": ("predict", "--config", "configs/cache.yaml", *LLM, "--data.init_args.file", "prompts.txt"),
}
BASES["unsteered"] = (*BASES["responses"], "--model.init_args.steering=null")
FILES = {"prompts.txt": "the cat\n\nthe dog\n"}
M, D, T, B = "model.init_args.", "data.init_args.", "trainer.", "model.init_args.backbone.init_args."
HUGE = "99999999999"


def named(value: str) -> tuple[str, ...]:
    """The number in a value, which the sentence must repeat; words are part of what it must say."""
    numbers = re.findall(r"nan|inf|-?\d+(?:\.\d*[1-9])?", value)
    return tuple(numbers[-1:]) if re.fullmatch(r"[-\[\]., \dnaif]+", value) and len(numbers) == 1 else ()


def cases(settings: Mapping[str, Sequence[tuple[str, str, str]]]) -> list[Case]:
    """A case for each option and value, by the command that it is added to."""
    return [
        Case(f"{base} {option}={value}", (*BASES[base], f"--{option}={value}"), (words, *named(value)), FILES)
        for base, table in settings.items()
        for option, value, words in table
    ]
