"""The README's first steps with steering-vectors: ``python THIS MODEL PAIRS`` in an environment that has it.

What the tool does is taken from it; splitting the pairs, scoring them and choosing layer and strength is the user's.
Prints processor seconds.
"""

import json
import sys
import time
from pathlib import Path

start = time.process_time()
import torch  # noqa: E402
from steering_vectors import train_steering_vector  # noqa: E402
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast  # noqa: E402

imported = time.process_time()
folder, file = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.float32).eval()
tokenizer = PreTrainedTokenizerFast(tokenizer_file=f"{folder}/tokenizer.json", pad_token="<pad>", eos_token="<eos>")
pairs = [json.loads(line) for line in Path(file).read_text(encoding="utf-8").splitlines()]
fit, choose, judge = pairs[:8], pairs[8:14], pairs[14:]
texts = [(f"{pair['prompt']} {pair['positive']}", f"{pair['prompt']} {pair['negative']}") for pair in fit]
vectors = {
    layer: train_steering_vector(model, tokenizer, texts, layers=[layer])
    for layer in range(model.config.num_hidden_layers)
}


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


def steered(setting: tuple[int, float]) -> float:
    """Return the mean margin on the pairs that choose."""
    layer, strength = setting
    with vectors[layer].apply(model, multiplier=strength):
        return sum(margins(choose))


strengths = 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0
layer, strength = max(((layer, strength) for layer in vectors for strength in strengths), key=steered)
before, unsteered = write(), sum(margin > 0 for margin in margins(judge))
with vectors[layer].apply(model, multiplier=strength):
    print(f"{before}\n{write()}")
    print(f"layer {layer}, strength {strength}: {unsteered} of {len(judge)} -> ", end="")
    print(sum(margin > 0 for margin in margins(judge)))
print(json.dumps({"import": imported - start, "all": time.process_time()}))
