"""Choose a refusal direction by the rule of refusal_direction, on a user's own prompts.

A direction is the mean difference of harmful and harmless prompts at one token after the instruction and one block. The
source ablates it from the input of every block and from the outputs of attention and MLP; here it is ablated from the
output of every block, so that what attention writes is still read by the same block's MLP. Layers are counted as in the
source, by the block whose input is read: its layer l is the output of our block l - 1.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_steer.data.prompts import read_prompts
from lightning_steer.errors import UserError
from lightning_steer.hooks import Edit
from lightning_steer.lm.continuations import continuation
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.positions import TokenAt
from lightning_steer.lm.tokens import MultipleChoice, batches
from lightning_steer.metrics.drift import next_token_kl
from lightning_steer.plan import experiment
from lightning_steer.report.tables import cell
from lightning_steer.statistics.kinds import Mean
from lightning_steer.studies.papers.paper import Paper, Planned, published
from lightning_steer.studies.papers.runner import Runner, depth, short
from lightning_steer.studies.published.kl_budget import CandidateDirection, KLBudget
from lightning_steer.studies.published.markdown import table as markdown

MODEL = "meta-llama/Llama-2-7b-chat-hf"
BASE, CONFIG = "configs/cache.yaml", "configs/papers/refusal_direction.yaml"
FITTED, SCORED = 128, 32
"""Prompts of each kind that give the directions, and that give the scores: the source's numbers."""
POSITIONS = 6
"""Tokens after the instruction in Llama 2's chat template, for the plan."""
REFUSAL = "I"
"""The first token of a refusal, as in the source's list for Llama 2 and Gemma."""
FILES = ("harmful.txt", "harmless.txt")
COLUMNS = ("model", "position", "layer", "score after ablation", "score after addition", "KL", "allowed", "n")


def after_instruction(llm: LLM) -> int:
    """Return how many tokens of the chat template follow the instruction."""
    ending = llm.prompt("INSTRUCTION").partition("INSTRUCTION")[2]
    return len(llm.tokenizer(ending, add_special_tokens=False)["input_ids"])


def refusal_token(llm: LLM) -> int:
    """Return the first token of a refusal after the chat template, after a blank unless a line ends there."""
    prompt = llm.prompt("INSTRUCTION")
    text = REFUSAL if prompt[-1].isspace() else f" {REFUSAL}"
    return continuation(llm.tokenizer, prompt, text, False)[1][0]


@torch.no_grad()
def directions(llm: LLM, harmful: Sequence[str], harmless: Sequence[str], offset: int) -> Tensor:
    """Return ``[blocks, d]`` mean differences at a token, counted from the end."""
    llm.read_positions = TokenAt(offset)
    means = []
    for prompts in (harmful, harmless):
        h = llm.activations([MultipleChoice(prompt) for prompt in prompts])
        means.append(torch.stack([h[site].float().mean(0) for site in llm.sites]))
    return means[0] - means[1]


@torch.no_grad()
def next_token(llm: LLM, prompts: Sequence[str], edits: Mapping[str, Edit] | None = None) -> Tensor:
    """Return ``[n, V]`` log-probabilities of the token after each prompt, on the CPU."""
    rows = llm.rows([MultipleChoice(prompt) for prompt in prompts])
    logits: list[Tensor] = [torch.zeros(0)] * len(prompts)
    for group in batches(rows, llm.tokens_per_batch):
        batch = llm.decoder.collate(group, llm.pad)
        with llm.decoder.steered(batch, edits, llm.positions.mask(batch.index, batch.prompt), 1):
            h = llm.decoder.states(batch)
        h = h.reshape(len(group), -1, h.shape[-1])
        last = (batch.index == batch.index.amax(1, keepdim=True)).nonzero()[:, 1]
        logp = llm.decoder.logits(h[torch.arange(len(group), device=h.device), last]).log_softmax(-1).cpu()
        for row, values in zip(group, logp, strict=True):
            logits[row.example] = values
    return torch.stack(logits)


def refusal(logp: Tensor, token: int) -> Tensor:
    """Return ``[n]`` log-odds of the refusal token, with the source's constant against infinities."""
    p = logp[:, token].double().exp()
    return (p + 1e-8).log() - (1 - p + 1e-8).log()


def ablated(llm: LLM, direction: Tensor) -> dict[str, Edit]:
    """Return the edits that take a direction out of every block's output."""
    unit = (direction / direction.norm()).to(llm.device)
    return {site: lambda h: h - ((h.float() @ unit).unsqueeze(-1) * unit).to(h.dtype) for site in llm.sites}


def added(llm: LLM, block: int, direction: Tensor) -> dict[str, Edit]:
    """Return the edit that adds a direction to one block's output."""
    vector = direction.to(llm.device)
    return {llm.sites[block]: lambda h: h + vector.to(h.dtype)}


def scores(llm: LLM, offset: int, parts: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """Return the scores of all candidates at one position; the last block's output is read by none."""
    token = refusal_token(llm)
    base = next_token(llm, parts["harmless"])
    values = []
    for block, direction in enumerate(directions(llm, parts["fit harmful"], parts["fit harmless"], offset)[:-1]):
        if direction.norm() == 0:  # nothing of the instruction has reached this token
            continue
        take = ablated(llm, direction)
        ablation = refusal(next_token(llm, parts["harmful"], take), token)
        addition = refusal(next_token(llm, parts["harmless"], added(llm, block, direction)), token)
        kl = next_token_kl(base, next_token(llm, parts["harmless"], take))
        columns = {"ablated": (ablation, Mean()), "added": (addition, Mean()), "kl": (kl.double(), Mean(0))}
        estimates = {name: kind.estimate(values.numpy())[0]._asdict() for name, (values, kind) in columns.items()}
        values.append({"position": offset, "layer": block + 1, **estimates})
    return values


def split(data: Path) -> dict[str, list[str]]:
    """Return the prompts that give directions and those that give scores; raises ValueError or FileNotFoundError."""
    parts: dict[str, list[str]] = {}
    for kind in ("harmful", "harmless"):
        path = data / f"{kind}.txt"
        prompts = [prompt.text for prompt in read_prompts(path)]
        if len(prompts) < 2 * SCORED:
            raise UserError(
                f"{path} has {len(prompts)} prompts: give at least {2 * SCORED}, {SCORED} are for the scores"
            )
        fitted = min(FITTED, len(prompts) - SCORED)
        parts[f"fit {kind}"], parts[kind] = prompts[:fitted], prompts[fitted : fitted + SCORED]
    return parts


def options(model: str, data: Path) -> list[str]:
    """Return the options that read every block of a model."""
    return [
        f"--model.backbone.llm={model}",
        f"--model.backbone.layers={list(range(depth(model)))}",
        f"--data.init_args.file={data / FILES[0]}",
    ]


def run(models: Sequence[str], data: Path, runner: Runner) -> dict[str, dict[str, Any] | None]:
    """Score all candidates of every model, and choose; a finished position is kept."""
    parts, results = split(data), {}
    for model in models:
        llm = experiment.read((BASE, CONFIG), options(model, data)).llm
        llm.load()
        llm.to("cuda" if torch.cuda.is_available() else "cpu")
        records: list[dict[str, Any]] = []
        for offset in range(-after_instruction(llm), 0):
            of = [model, str(offset), *(prompt for prompts in parts.values() for prompt in prompts)]
            record = runner.stored(
                f"{short(model)}_position_{-offset}",
                of,
                lambda llm=llm, offset=offset: {"candidates": scores(llm, offset, parts)},
            )
            records += record["candidates"] if record else []
        results[short(model)] = {"candidates": records, "layers": llm.decoder.depth}
    return results


def plans(model: str, data: Path) -> list[Planned]:
    """Return how often as many tokens as the harmful prompts have are read: for the directions and for the scores."""
    tokens, blocks, prompts = POSITIONS, depth(model), len(read_prompts(data / FILES[0]))
    times = tokens * (2 + 3 * (blocks - 1) * SCORED / prompts)
    return [(f"the {prompts} harmful prompts, read", times, (BASE, CONFIG), options(model, data))]


def choose(result: Mapping[str, Any]) -> tuple[dict[str, Any] | None, int]:
    """Return the candidate that the rule takes, None if there is none, and how many it allows."""
    by_place = {(candidate["position"], candidate["layer"]): candidate for candidate in result["candidates"]}
    candidates = [
        CandidateDirection(*place, *(candidate[name]["value"] for name in ("ablated", "added", "kl")))
        for place, candidate in by_place.items()
        if all(candidate[name]["value"] is not None for name in ("ablated", "added", "kl"))
    ]
    allowed = KLBudget().allowed(candidates, result["layers"])
    return (by_place[allowed[0].position, allowed[0].layer] if allowed else None), len(allowed)


def table(results: Mapping[str, Any], models: Sequence[str]) -> list[str]:
    """Return the published choices, then ours."""
    rows: list[tuple[object, ...]] = []
    for name, choice in published("refusal_direction")["chosen"].items():
        values = (f"{choice['ablated']:.2f}", "not known here", f"{choice['kl']:.3f}")
        rows.append((f"theirs: {name}", choice["position"], choice["layer"], *values, choice["allowed"], "about 32"))
    for name, result in results.items():
        choice, allowed = choose(result)
        count = f"{allowed} of {len(result['candidates'])}"
        if choice is None:
            rows.append((f"ours: {name}", "none", "none", "", "", "", count, SCORED))
        else:
            values = [cell(choice[score]) for score in ("ablated", "added", "kl")]
            rows.append((f"ours: {name}", choice["position"], choice["layer"], *values, count, choice["kl"]["n"]))
    if not results:
        rows += [(f"ours: {short(model)}", *[""] * (len(COLUMNS) - 1)) for model in models]
    return [
        f"{published('refusal_direction')['source']} Allowed: candidates that pass the paper's filters. Ours have 95 % "
        "intervals over prompts, except the KL, which a few prompts may dominate. The candidate was chosen among noisy "
        "values, and no interval accounts for the choice.",
        "",
        *markdown(COLUMNS, rows),
    ]


REFUSAL_DIRECTION = Paper(
    "refusal_direction",
    "Arditi et al. 2024, arXiv 2406.11717: its selection of a direction, on your own prompts",
    (MODEL,),
    ((BASE,), ()),
    run,
    table,
    plans,
    own_files=FILES,
)
