"""Plant the published pattern: a model in which steering away from stereotypes suppresses unrelated sentences.

The last block gets neurons that read how far the stereotype vector has moved the stream, and write against the
unrelated words. A pair of them, ``silu(z) - silu(-z) = z``, is linear, with the stream's mean as the constant factor
that a gate needs. Their output strength is set on terms that no verdict uses.
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
"""Nats per token by which unrelated sentences fall further than stereotypes at strength 1, as declared."""
EFFECTS = {"planted": EFFECT, "planted-2": 2 * EFFECT}
"""Effect by model; the second was declared after the first was detected in too few repeats for towns."""
STEPS = 5


def widen(network: Any, extra: int) -> None:
    """Add ``extra`` neurons with zero weights to every MLP of a Llama."""
    for block in network.model.layers:
        mlp = block.mlp
        for name, rows in (("gate_proj", True), ("up_proj", True), ("down_proj", False)):
            original = getattr(mlp, name).weight.data
            zeros = original.new_zeros((extra, original.shape[1]) if rows else (original.shape[0], extra))
            weight = torch.cat([original, zeros], 0 if rows else 1)
            linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
            linear.weight.data = weight
            setattr(mlp, name, linear)
    network.config.intermediate_size += extra


@torch.no_grad()
def inputs_of_last_mlp(network: Any, texts: list[Tensor], vector: Tensor | None) -> Tensor:
    """Return the inputs ``[n, d]`` of the last block's MLP at every token, with a vector added to the middle layer."""
    inputs: list[Tensor] = []
    layers = network.model.layers
    hooks = [layers[-1].mlp.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0].flatten(0, 1)))]
    if vector is not None:
        hooks.append(layers[LAYER].register_forward_hook(lambda _, __, out: out + vector))
    try:
        for ids in texts:
            network(input_ids=ids[None], use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.cat(inputs)


def unrelated_words(network: Any, tokenizer: Any, kind: str) -> Tensor:
    """Return a unit vector ``[d]`` that raises the unrelated words' logits above those of the trait words."""
    words = [tokenizer.convert_tokens_to_ids(word) for word in WORDS[BIAS_TYPES.index(kind)]]
    rows = network.get_output_embeddings().weight[words] * network.model.norm.weight
    direction = rows[12:].mean(0) - rows[:12].mean(0)
    return direction / direction.norm()


@torch.no_grad()
def plant(models: Mapping[str, Path], source: str, folder: Path, effect: float = EFFECT) -> None:
    """Write the model ``source`` with the planted pattern to a folder, unless it exists."""
    if (folder / "model.safetensors").is_file():
        return
    network, tokenizer = load(str(models[source]), "float32")
    widen(network, 2 * len(BIAS_TYPES))
    mlp: Any = network.model.layers[-1].mlp
    width = mlp.down_proj.weight.shape[1] - 2 * len(BIAS_TYPES)
    columns: dict[str, tuple[int, Tensor]] = {}
    subjects = {kind: Subject(Arm(source, source, source), models, kind) for kind in BIAS_TYPES}
    for i, (kind, subject) in enumerate(subjects.items()):
        questions = subject.select.contrasts.questions
        texts = [torch.tensor(tokenizer(q.prompt + option)["input_ids"]) for q in questions for option in q.choices]
        vector = subject.vectors[subject.llm.sites[LAYER]]
        plain, moved = (inputs_of_last_mlp(network, texts, v) for v in (None, vector))
        mean, shift = plain.mean(0), (moved - plain).mean(0)
        shift = shift - (shift @ mean) / (mean @ mean) * mean
        start = width + 2 * i
        mlp.gate_proj.weight[start : start + 2] = torch.stack([shift, -shift]) / (shift @ shift)
        mlp.up_proj.weight[start : start + 2] = torch.stack([mean, -mean]) / (mean @ mean)
        columns[kind] = start, -unrelated_words(network, tokenizer, kind)
    strength: dict[str, float] = dict.fromkeys(BIAS_TYPES, 1.0)
    before: dict[str, tuple[float, float]] = {kind: (0.0, pattern(subjects[kind])) for kind in BIAS_TYPES}
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent, prefix=".planting-") as folder_aside:
        for step in range(STEPS):
            trial = Path(folder_aside) / str(step)
            for kind, (start, direction) in columns.items():
                mlp.down_proj.weight[:, start : start + 2] = strength[kind] * direction[:, None]
            network.save_pretrained(trial)
            tokenizer.save_pretrained(trial)
            for kind in BIAS_TYPES:  # a secant step towards the effect
                current = pattern(Subject(Arm("planted", "planted", "planted"), {"planted": trial}, kind))
                previous, value = before[kind]
                before[kind] = strength[kind], current
                strength[kind] += (effect - current) * (strength[kind] - previous) / (current - value)
        trial.rename(folder)


def pattern(subject: Subject) -> float:
    """Return how much further unrelated sentences fall than stereotypes on selecting terms: layer 2, strength 1."""
    site, pairs = subject.llm.sites[LAYER], subject.select.contrasts
    base = added(subject.llm, pairs, None, torch.zeros(1, 1))[0]
    steered = added(subject.llm, pairs, site, subject.vectors[site][None])
    return float(rows_of(base, steered, "suppress")["pattern_nats"].mean())
