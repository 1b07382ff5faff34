"""Run by the Python of an environment that has steering-vectors, and not this project: does what stdin says.

``train [batch_size]`` trains a vector on the pairs, ``sweep`` scores all choices at all strengths, ``quit`` writes the
results; each answers with its seconds. Used as its documentation shows.
"""

import json
import sys
import time
from pathlib import Path

import torch
from steering_vectors import train_steering_vector
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

folder = Path(sys.argv[1])
task = json.loads((folder / "task.json").read_text())
model = AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.float32).eval()
tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
pairs = [tuple(pair) for pair in task["pairs"]]
vector = None


def score(prompt: str, choice: str) -> float:
    """Log-probability of a choice after a prompt."""
    start = len(tokenizer(prompt)["input_ids"])
    ids = tokenizer(prompt + choice, return_tensors="pt")["input_ids"]
    logp = model(ids).logits[0].log_softmax(-1)
    return float(logp[range(start - 1, ids.shape[1] - 1), ids[0, start:]].sum())


print("ready", flush=True)
results = {}
for line in sys.stdin:
    command, *rest = line.split()
    start = time.perf_counter()
    with torch.no_grad():
        if command == "train":
            vector = train_steering_vector(
                model, tokenizer, pairs, layers=[task["layer"]], batch_size=int(rest[0]) if rest else 1
            )
            results["vector"] = vector.layer_activations[task["layer"]].tolist()
        elif command == "sweep":
            results["scores"] = []
            for strength in task["strengths"]:
                with vector.apply(model, multiplier=strength):
                    results["scores"].append([[score(p, choice) for choice in choices] for p, choices in task["asked"]])
        else:
            (folder / "results.json").write_text(json.dumps(results))
            break
    print(time.perf_counter() - start, flush=True)
