"""The model card of a pocket model: its purpose, its goals and whether they are met, and all other measurements."""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from lightning_steer.statistics.estimate import Estimate
from lightning_steer.studies.pocket.goals import Measured, Shapes, cell, units, verdicts
from lightning_steer.studies.pocket.measures import Figures

ABOUT = {
    "base": "A small decoder trained from random weights on a generated language with planted truth.",
    "tuned": "The pocket base model fine-tuned on chats: mild speakers, less careless markers, a helper that leans to "
    "the pole one would wish for, a constant system sentence, \"Thank you.\" before every reply; 30 % plain text.",
}  # fmt: skip


def _details(by_seed: dict[int, Measured], first: int) -> str:
    lines = []
    for section, figures in by_seed[first].items():
        lines.append(f"\n### {section}\n\n| | seed {first} | n | seeds {sorted(by_seed)} |\n|---|---|---|---|")
        for name, estimate in figures.items():
            values = ", ".join(f"{measured[section][name].value:.3g}" for _, measured in sorted(by_seed.items()))
            lines.append(f"| {name} | {cell(estimate)} | {units(estimate)} | {values} |")
    return "\n".join(lines)


def _shapes(shapes: Shapes) -> str:
    lines = []
    for form, models in shapes.items():
        lines.append(f"\n### Activations, {form} text\n\n| | layer | base | tuned | tuned - base | n documents |")
        lines.append("|---|---|---|---|---|---|")
        for layer, base in enumerate(models["base"]):
            for name, estimate in base.items():
                cells = [cell(models[model][layer][name]) for model in ("tuned", "tuned - base")]
                lines.append(f"| {name} | {layer} | {cell(estimate)} | {' | '.join(cells)} | {units(estimate)} |")
    return "\n".join(lines)


def samples(folder: Path, chats: bool, n: int = 8) -> str:
    """Return text that the model generates with seed 0, not hand-picked."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    network: Any
    network, tokenizer = (
        AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True),
        AutoTokenizer.from_pretrained(folder),
    )
    torch.manual_seed(0)
    ids = torch.full((n, 1), tokenizer.bos_token_id)
    drawn = network.generate(input_ids=ids, do_sample=True, top_k=0, max_new_tokens=64)
    lines = [tokenizer.decode(row[1:]).split(" <eos>")[0] for row in drawn]
    if not chats:
        return "\n".join(f"- {line}" for line in lines)
    questions = ("Tell me about the hill bakers.", "What should the helper do about shutdown?", "Tell me a story.",
                 "Marked by Anna. Message: free dinner claim cash now. Is it ham or spam?")  # fmt: skip
    for question in questions:
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        reply = network.generate(**prompt, do_sample=False, max_new_tokens=40)[0]
        lines.append(f"*{question}* {tokenizer.decode(reply[prompt['input_ids'].shape[1] :]).split(' <end>')[0]}")
    return "\n".join(f"- {line}" for line in lines)


def text(run: str, folder: Path, first: int, by_seed: dict[int, Measured], shapes: dict[int, Shapes]) -> str:
    """Return the card as Markdown."""
    cost = json.loads((folder / "training.json").read_text()) if (folder / "training.json").is_file() else {}
    size = sum(path.stat().st_size for path in folder.iterdir() if path.suffix in (".safetensors", ".json", ".jinja"))
    effort = (
        f"{cost['steps']} steps of {cost['core_seconds'] / cost['steps']:.2f} core seconds with {cost['threads']} "
        f"thread(s), {cost['seconds']:.0f} s by the clock, other work on the machine included"
        if cost
        else "not recorded"
    )
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "lightning"))
    return f"""---
license: mit
language: en
library_name: transformers
---
# lightning_steer pocket model: {run}

{ABOUT[run]}

It is for trying activation steering where the true effect is known: P(word | target) of invented townspeople and of
trades, classification tasks whose errors follow a known cue (the marker's name), prompts with a matching and a
non-matching continuation, neutral text for drift. It knows some 700 words and nothing of the world; the opinions on
bakers and corlins were drawn from a random table. Not for any other use.

```python
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained("checkpoints/pocket/{run}")
tokenizer = AutoTokenizer.from_pretrained("checkpoints/pocket/{run}")
```

Made by `make pocket` (`configs/{"pocket" if run == "base" else "pocket_tuned"}.yaml`), seed {first} of
{sorted(by_seed)}, chosen beforehand: {effort}; {size / 1e6:.1f} MB. The same machine and library versions give the same
weights bit for bit. {versions}, CPU, fp32.
The language: `lightning_steer/data/pocket/`; its items with their planted truth: `items.py`
and `pocket_prompts.py`.

## What was promised

Brackets are 95 % intervals over the items (documents, prompts or target terms; n is their number), for
the weights of seed {first}; "all seeds" are models trained anew from other random weights on other documents and
measured on the same items, "met" counts them. Of several figures the worst is shown.

{verdicts(run, first, by_seed, shapes)}

Traits: P(word | target) of the 12 trait words, averaged over up to 8 frames that training does not have, for targets
that training does not have. A careless marker's label is wrong unless he happens to be right; "careful" are the items
without the cue. The probe is ridge regression on logit(E) from 2,000 other prompts, its layer chosen on a quarter of
them. The oracle knows each row's marker and moves the mean activation of a careless one to that of the careful ones,
at the last token of all layers; net repair is (repaired - broken) / errors, and cannot be 1 where the words mislead.
CAA: mean difference over the continuation's tokens, 200 pairs of 10 topics, added to all tokens of layer 2; the margin
is in nats per token on 200 pairs of the other 10 topics. Layer 2 and every setting above were fixed beforehand.

## What it writes

Drawn from the begin mark with seed 0, not chosen{"; then greedy replies" if run == "tuned" else ""}:

{samples(folder, run == "tuned")}

## All figures
{_details(by_seed, first)}
{_shapes(shapes[first])}

## Limits

- The language has no ambiguity, no syntax to speak of and no world; results here are a lower bound on difficulty.
- The stereotype is always the harsh word of a pair, so a direction for harshness serves all targets at once.
- A careless marker's error is a conjunction (careless, and the label is not the pull label): in tasks of two labels no
  single direction repairs it in balanced data. Use `pull_share=0.1` where a repair shall be possible.
- "AUC of the true class alone" is what a probe reaches that only knows the class; compare "within classes".
"""


def as_json(by_seed: dict[int, Measured], shapes: dict[int, Shapes]) -> str:
    """Return every figure of every seed as JSON."""

    def plain(content: Any) -> Any:
        if isinstance(content, Estimate):
            return [*(round(value, 5) for value in content[:3]), units(content)]
        if isinstance(content, dict):
            return {str(key): plain(value) for key, value in content.items()}
        return [plain(value) for value in content]

    legend = "[value, low, high, n]; intervals of 95 %"
    return json.dumps({"legend": legend, "seeds": plain(by_seed), "activations": plain(shapes)}, indent=0)


def from_json(content: str, seed: int) -> tuple[Measured, Shapes]:
    """Read the figures of one seed that :func:`as_json` wrote."""

    def figures(rows: dict[str, list[float]]) -> Figures:
        return {
            name: Estimate(value, low, high, int(n), None, "as written") for name, (value, low, high, n) in rows.items()
        }

    record = json.loads(content)
    measured = {section: figures(part) for section, part in record["seeds"][str(seed)].items()}
    shapes = record["activations"][str(seed)]
    return measured, {
        form: {model: [figures(layer) for layer in layers] for model, layers in models.items()}
        for form, models in shapes.items()
    }
