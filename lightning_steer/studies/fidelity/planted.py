"""The published pattern, planted: a model in which steering away from stereotypes suppresses what is unrelated.

The last block gets neurons that read how far the stereotype vector has moved the stream, and write against the words
that are unrelated. A pair of them, ``silu(z) - silu(-z) = z``, is linear, with the stream's mean as the constant factor
that a gate needs. How strongly they write is set on terms that no verdict is about.
"""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from lightning_steer.data.pocket.stereotypes import BIAS_TYPES, WORDS
from lightning_steer.lm.loading import load
from lightning_steer.studies.fidelity.settings import LAYER, Arm
from lightning_steer.studies.fidelity.subject import Subject, added
from lightning_steer.studies.fidelity.sweep import rows_of

EFFECT = 0.01
"""Nats per token by which unrelated sentences fall further than stereotypes at strength 1: what is declared as seen."""
EFFECTS = {"planted": EFFECT, "planted-2": 2 * EFFECT}
"""By model; the second was declared when the first had been found in too few repeats for towns."""
STEPS = 5


def widen(network: Any, extra: int) -> None:
    """Give every MLP of a Llama ``extra`` neurons that do nothing yet."""
    for block in network.model.layers:
        mlp = block.mlp
        for name, rows in (("gate_proj", True), ("up_proj", True), ("down_proj", False)):
            old = getattr(mlp, name).weight.data
            zeros = old.new_zeros((extra, old.shape[1]) if rows else (old.shape[0], extra))
            weight = torch.cat([old, zeros], 0 if rows else 1)
            new = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
            new.weight.data = weight
            setattr(mlp, name, new)
    network.config.intermediate_size += extra


@torch.no_grad()
def inputs_of_last_mlp(network: Any, texts: list[Tensor], vector: Tensor | None) -> Tensor:
    """Return ``[n, d]`` what the last block's MLP reads at every token, with a vector added to the middle layer."""
    seen: list[Tensor] = []
    layers = network.model.layers
    hooks = [layers[-1].mlp.register_forward_pre_hook(lambda _, given: seen.append(given[0].flatten(0, 1)))]
    if vector is not None:
        hooks.append(layers[LAYER].register_forward_hook(lambda _, __, out: out + vector))
    try:
        for ids in texts:
            network(input_ids=ids[None], use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.cat(seen)


def unrelated_words(network: Any, tokenizer: Any, kind: str) -> Tensor:
    """Return a unit vector ``[d]`` of the stream that raises the unrelated words' logits above the other traits'."""
    words = [tokenizer.convert_tokens_to_ids(word) for word in WORDS[BIAS_TYPES.index(kind)]]
    rows = network.get_output_embeddings().weight[words] * network.model.norm.weight
    direction = rows[12:].mean(0) - rows[:12].mean(0)
    return direction / direction.norm()


@torch.no_grad()
def plant(models: Mapping[str, Path], source: str, folder: Path, effect: float = EFFECT) -> None:
    """Write the model ``source`` with the pattern planted to a folder, unless it is there."""
    if (folder / "model.safetensors").is_file():
        return
    network, tokenizer = load(str(models[source]), "float32")
    widen(network, 2 * len(BIAS_TYPES))
    last: Any = network.model.layers[-1].mlp
    width = last.down_proj.weight.shape[1] - 2 * len(BIAS_TYPES)
    columns: dict[str, tuple[int, Tensor]] = {}
    subjects = {kind: Subject(Arm(source, source, source), models, kind) for kind in BIAS_TYPES}
    for i, (kind, subject) in enumerate(subjects.items()):
        asked = subject.select.contrasts.questions
        texts = [torch.tensor(tokenizer(q.prompt + option)["input_ids"]) for q in asked for option in q.options]
        vector = subject.vectors[subject.llm.sites[LAYER]]
        plain, moved = (inputs_of_last_mlp(network, texts, v) for v in (None, vector))
        mean, shift = plain.mean(0), (moved - plain).mean(0)
        shift = shift - (shift @ mean) / (mean @ mean) * mean
        at = width + 2 * i
        last.gate_proj.weight[at : at + 2] = torch.stack([shift, -shift]) / (shift @ shift)
        last.up_proj.weight[at : at + 2] = torch.stack([mean, -mean]) / (mean @ mean)
        columns[kind] = at, -unrelated_words(network, tokenizer, kind)
    strength: dict[str, float] = dict.fromkeys(BIAS_TYPES, 1.0)
    before: dict[str, tuple[float, float]] = {kind: (0.0, pattern(subjects[kind])) for kind in BIAS_TYPES}
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent, prefix=".planting-") as aside:
        for step in range(STEPS):
            trial = Path(aside) / str(step)
            for kind, (at, direction) in columns.items():
                last.down_proj.weight[:, at : at + 2] = strength[kind] * direction[:, None]
            network.save_pretrained(trial)
            tokenizer.save_pretrained(trial)
            for kind in BIAS_TYPES:  # a secant step towards the effect
                now = pattern(Subject(Arm("planted", "planted", "planted"), {"planted": trial}, kind))
                old, value = before[kind]
                before[kind] = strength[kind], now
                strength[kind] += (effect - now) * (strength[kind] - old) / (now - value)
        trial.rename(folder)


def pattern(subject: Subject) -> float:
    """Return how much further unrelated sentences fall than stereotypes on selecting terms: layer 2, strength 1."""
    site, part = subject.llm.sites[LAYER], subject.select.contrasts
    base = added(subject.llm, part, None, torch.zeros(1, 1))[0]
    steered = added(subject.llm, part, site, subject.vectors[site][None])
    return float(rows_of(base, steered, "suppress")["pattern_nats"].mean())
