"""MERA's pipeline against the procedure of its release: caching errors and activations, then calibrating and testing.

The release works prompt by prompt: it generates up to 100 tokens, runs a second full forward pass for the hidden states
and a third for the logits, and pickles; every decision (a prompt at a threshold) is again a generation and a forward
pass. It is written here from its description, without its calls of the garbage collector, which take two thirds of its
time. Ours: one pass over batches of prompts, the positions and labels that are read and no others (``last``), or
batched generation that stops at the first label (``exact``); all thresholds of a prompt from one pass up to its last
token. Same prompts, thresholds, model and number of decisions; answers are compared.

    OMP_NUM_THREADS=2 python benchmarks/mera_pipeline.py      # five minutes, nearly all of them the release's
"""

import argparse
import os
import pickle
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from side_by_side import compared, say
from torch import Tensor

from lightning_steer.data.mera.generated_answers import answer, first_label
from lightning_steer.data.mera.module import MERADataModule
from lightning_steer.data.mera.tasks import PocketTask
from lightning_steer.hooks import edit
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.positions import LastPromptToken
from lightning_steer.lm.tokens import MultipleChoice
from lightning_steer.methods import MERA, SteeringMethod
from lightning_steer.metrics.answers import label_probabilities
from lightning_steer.records import Activations
from lightning_steer.studies.mera.decisions import Decisions

ALPHAS = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05]


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and the result."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


@torch.no_grad()
def released(llm: LLM, question: MultipleChoice, label_ids: Tensor) -> tuple[int, int, Tensor, Tensor]:
    """A prompt as the release takes it: answer at ``last``, first label written, label logits, hidden states."""
    ids = llm.tokenizer(question.prompt, return_tensors="pt")["input_ids"]
    out = llm.model.generate(ids, max_new_tokens=100, do_sample=False, pad_token_id=llm.pad)
    text = llm.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
    hidden = llm.model(ids, output_hidden_states=True).hidden_states
    logits = llm.model(out).logits[0, ids.shape[1] - 1, label_ids]
    return int(logits.argmax()), first_label(text, question.choices)[0], logits, torch.stack(hidden)[:, 0]


def their_cache(llm: LLM, questions: list[MultipleChoice], label_ids: Tensor, folder: Path) -> list[tuple[int, int]]:
    """Prompt by prompt, pickled."""
    states, answers = [], []
    for question in questions:
        last, written, logits, hidden = released(llm, question, label_ids)
        states.append({"logits": logits, "hidden": hidden})
        answers.append((last, written))
    with (folder / "theirs.pkl").open("wb") as file:
        pickle.dump(states, file)  # as the release does, and is timed for; nothing ever reads it
    return answers


def our_cache(llm: LLM, questions: list[MultipleChoice], folder: Path) -> list[int]:
    """Position ``last``: one pass."""
    scores, h = llm.observe(questions)
    save_file({"scores": scores, **h}, folder / "ours.safetensors")
    return scores.argmax(-1).tolist()


def our_exact_cache(llm: LLM, questions: list[MultipleChoice], folder: Path) -> list[int]:
    """Position ``exact``: the model answers first."""
    answered = answer(llm, questions)
    our_cache(llm, answered.questions, folder)
    return answered.option.tolist()


def their_decisions(
    llm: LLM, method: SteeringMethod, calibration: list[MultipleChoice], test: list[MultipleChoice], label_ids: Tensor
) -> list[int]:
    """Every threshold on every calibration prompt, one on every test prompt."""
    site, decisions = llm.sites[-1], []
    for alpha, questions in [*((alpha, calibration) for alpha in ALPHAS), (ALPHAS[-1], test)]:
        for question in questions:
            with edit(llm.model, {site: lambda h, a=alpha: method(h, a)}):
                decisions.append(released(llm, question, label_ids)[0])
    return decisions


def our_decisions(
    llm: LLM, method: SteeringMethod, calibration: list[MultipleChoice], test: list[MultipleChoice]
) -> list[int]:
    """The same decisions at the last token, where they are made."""
    layer = llm.layers[-1]
    first = Decisions(llm, calibration).scores({layer: method}, ALPHAS)
    second = Decisions(llm, test).scores({layer: method}, ALPHAS[-1:])
    return [*first.argmax(-1).flatten().tolist(), *second.argmax(-1).flatten().tolist()]


def show(name: str, peer: list[float], own: list[float], goal: float, same: float) -> None:
    """Theirs over ours, and how many answers agree."""
    told = f"{name}, the release's procedure over ours, answers equal {same:.1%}"
    say("MERA pipeline", compared(list(zip(peer, own, strict=True))), f">= {goal:g}", told, same=same)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llm", default="checkpoints/pocket/base", help="model folder, with the pocket tokenizer")
    parser.add_argument("--task", default="sentiment_analysis")
    parser.add_argument("--prompts", type=int, default=100, help="to cache")
    parser.add_argument("--calibration", type=int, default=50, help="prompts at each threshold, 20 or more")
    parser.add_argument("--test", type=int, default=200, help="prompts at one threshold")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    llm = LLM(options.llm, layers=-1, positions=LastPromptToken())
    llm.load()
    data = MERADataModule(PocketTask(options.task, 0.1), max(options.prompts, 1000), options.calibration, options.test)
    data.setup()
    every = [MultipleChoice(example.prompt, data.choices) for example in data.train]
    prompts = every[: options.prompts]
    calibration, test = (
        [MultipleChoice(e.prompt, data.choices) for e in part] for part in (data.calibration, data.test)
    )
    label_ids = torch.tensor([llm.rows([MultipleChoice(prompts[0].prompt, (o,))])[0].reads[0][1] for o in data.choices])
    scores, h = llm.observe(every)
    y = torch.tensor([example.label for example in data.train])
    error = 1 - label_probabilities(scores, torch.arange(len(data.choices)))[torch.arange(len(y)), y]
    seen = Activations(h[llm.sites[-1]], error, y.unsqueeze(1), False)
    method = MERA(h[llm.sites[-1]].shape[-1], mahalanobis=True).fit(seen)
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, "
        f"{torch.get_num_threads()} threads; {options.llm}, {data.task}\n"
    )
    cache: dict[str, list[float]] = {"theirs": [], "last": [], "exact": [], "their decisions": [], "our decisions": []}
    same: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for _ in range(options.repeats):
            seconds, peer = timed(lambda: their_cache(llm, prompts, label_ids, folder))
            cache["theirs"].append(seconds)
            seconds, own = timed(lambda: our_cache(llm, prompts, folder))
            cache["last"].append(seconds)
            same["last"] = sum(a == t for a, (t, _) in zip(own, peer, strict=True)) / len(own)
            seconds, own = timed(lambda: our_exact_cache(llm, prompts, folder))
            cache["exact"].append(seconds)
            same["exact"] = sum(a == t for a, (_, t) in zip(own, peer, strict=True)) / len(own)
            seconds, peer = timed(lambda: their_decisions(llm, method, calibration, test, label_ids))
            cache["their decisions"].append(seconds)
            seconds, own = timed(lambda: our_decisions(llm, method, calibration, test))
            cache["our decisions"].append(seconds)
            same["decisions"] = sum(a == t for a, t in zip(own, peer, strict=True)) / len(own)
    n = len(own)
    show(f"cache, last, {len(prompts)} prompts", cache["theirs"], cache["last"], 20, same["last"])
    show(f"cache, exact, {len(prompts)} prompts", cache["theirs"], cache["exact"], 4, same["exact"])
    show(f"calibrate and test, {n} decisions", cache["their decisions"], cache["our decisions"], 30, same["decisions"])


if __name__ == "__main__":
    main()
