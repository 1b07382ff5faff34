"""The README's first steps with repeng: ``python THIS MODEL PAIRS`` in an environment that has it.

What the tool does is taken from it, and it steers all layers at once, as it is documented; splitting the pairs, scoring
them and choosing the strength is the user's. Prints processor seconds.
"""

import json
import sys
import time
from pathlib import Path

start = time.process_time()
import torch  # noqa: E402
from repeng import ControlModel, ControlVector, DatasetEntry  # noqa: E402
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast  # noqa: E402

imported = time.process_time()
folder, file = sys.argv[1:]
loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
tokenizer = PreTrainedTokenizerFast(tokenizer_file=f"{folder}/tokenizer.json", pad_token="<pad>", eos_token="<eos>")
pairs = [json.loads(line) for line in Path(file).read_text(encoding="utf-8").splitlines()]
fit, choose, judge = pairs[:8], pairs[8:14], pairs[14:]
texts = [DatasetEntry(f"{pair['prompt']} {pair['positive']}", f"{pair['prompt']} {pair['negative']}") for pair in fit]
model = ControlModel(loaded, list(range(1, loaded.config.num_hidden_layers)))  # it has no direction for the first
vector = ControlVector.train(model, tokenizer, texts)


def write() -> str:
    """Continue a prompt."""
    ids = tokenizer("Asked about gold, the helper will", return_tensors="pt", return_token_type_ids=False)
    return tokenizer.decode(model.generate(**ids, max_new_tokens=8, do_sample=False)[0], skip_special_tokens=True)


@torch.no_grad()
def score(prompt: str, text: str) -> float:
    """Return nats per token of a continuation."""
    first = len(tokenizer(prompt)["input_ids"])
    ids = tokenizer(f"{prompt} {text}", return_tensors="pt", return_token_type_ids=False)["input_ids"]
    logp = model(ids).logits[0].log_softmax(-1)
    return float(logp[range(first - 1, ids.shape[1] - 1), ids[0, first:]].mean())


def margins(part: list[dict[str, str]]) -> list[float]:
    """Return how much likelier the positive is."""
    return [score(pair["prompt"], pair["positive"]) - score(pair["prompt"], pair["negative"]) for pair in part]


def steered(strength: float) -> float:
    """Return the mean margin on the pairs that choose."""
    model.set_control(vector, strength)
    return sum(margins(choose))


strengths = 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0
strength = max(strengths, key=steered)
model.reset()
before, unsteered = write(), sum(margin > 0 for margin in margins(judge))
model.set_control(vector, strength)
print(f"{before}\n{write()}")
print(f"strength {strength}: {unsteered} of {len(judge)} -> {sum(margin > 0 for margin in margins(judge))}")
print(json.dumps({"import": imported - start, "all": time.process_time()}))
