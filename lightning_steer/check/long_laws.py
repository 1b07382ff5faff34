"""Laws on the model's own head, on prompts longer than every window, and on generating without a cache."""

import torch
from torch import Tensor

from lightning_steer.check.scoring_laws import largest_difference
from lightning_steer.check.tool import TOLERANCE, Bench
from lightning_steer.lm.positions import AllTokens, GeneratedTokens, LastPromptToken, PromptTokens, TokensFrom
from lightning_steer.lm.tokens import MultipleChoice, rows_of


def logits_are_the_models_own(bench: Bench) -> tuple[bool, str]:
    """Logits are the model's own, with its scales, caps and multipliers."""
    llm, row = bench.llm, bench.rows[0].unsqueeze(0)
    expected = llm.model(row, use_cache=False).logits[0]
    h = llm.decoder.base(input_ids=row, use_cache=False)[0][0]
    same, detail = bench.close(llm.decoder.logits(h), expected)
    tokens = torch.arange(0, expected.shape[1], 3, device=h.device)
    agrees = same and bench.close(llm.decoder.logits(h, tokens), expected[:, tokens])[0]
    return agrees, detail


def long_prompts_are_plain_forwards(bench: Bench) -> tuple[bool, str]:
    """After a prompt longer than every window and chunk, scores are those of single forward passes."""
    prompts, context = bench.long_prompts()
    _, worst = largest_difference(bench, bench.long, prompts)
    return worst <= 20 * TOLERANCE[bench.long.model.dtype], f"{context}; largest difference {worst:.1e} nats"


def long_rows_have_no_neighbours(bench: Bench) -> tuple[bool, str]:
    """A row longer than every window comes out the same beside others and by itself."""
    llm, tolerance = bench.long, TOLERANCE[bench.long.model.dtype]
    prompts, context = bench.long_prompts()
    question = MultipleChoice(prompts[0], bench.choices[:1])
    beside = bench.tool.score(llm, [question, *(MultipleChoice(text, bench.choices) for text in prompts[1:])])[0, 0]
    worst = float((beside - bench.tool.score(llm, [question])[0, 0]).abs()) / 20
    ids = [rows_of(llm.tokenizer, i, MultipleChoice(text), True, False)[0].ids for i, text in enumerate(prompts)]
    batch = torch.full((len(ids), max(map(len, ids))), llm.pad, device=llm.device)
    mask = torch.zeros_like(batch)
    for i, row in enumerate(ids):
        batch[i, : len(row)], mask[i, : len(row)] = torch.tensor(row), 1
    together = bench.tool.forward(llm, batch, mask)
    for i, row in enumerate(ids):
        alone = llm.model(torch.tensor([row], device=llm.device), use_cache=False).logits[0].float()
        difference = (together[i, : len(row)].float() - alone).abs().max() / alone.abs().max().clamp_min(1e-6)
        worst = max(worst, float(difference))
    return worst <= tolerance, f"{context}; largest difference {worst:.1e} of the logits' size"


def generation_needs_no_cache(bench: Bench) -> tuple[bool, str]:
    """With use_cache=False the same is generated as with a cache, whichever tokens are steered."""
    rules = (AllTokens(), PromptTokens(), LastPromptToken(), GeneratedTokens(), TokensFrom(1))
    for positions in rules:
        (with_cache, logits), (without, others) = (_generated(bench, positions, cached) for cached in (True, False))
        alike = (with_cache == without).cumprod(1).bool()  # after a near tie the two go on with other tokens
        alike = torch.cat([alike.new_ones(len(alike), 1), alike[:, :-1]], 1)
        same, detail = bench.close(others[alike], logits[alike])
        if not same:
            return False, f"{type(positions).__name__}: {detail}"
    return True, f"{len(rules)} rules of positions, 2 prompts of different lengths"


def _generated(
    bench: Bench, positions: AllTokens | PromptTokens | LastPromptToken | GeneratedTokens | TokensFrom, cached: bool
) -> tuple[Tensor, Tensor]:
    """``[B, n]`` tokens and ``[B, n, V]`` their logits."""
    rows = [row[:8] for row in bench.rows[:2]]  # the law is about which tokens are steered, not about long texts
    ids, mask = bench.padded("left", rows)
    settings = {"max_new_tokens": 3, "min_new_tokens": 3, "do_sample": False, "pad_token_id": bench.llm.pad}
    with bench.steered(bench.strengths()[:2], positions, mask.sum(1)):
        out = bench.llm.model.generate(
            input_ids=ids,
            attention_mask=mask,
            use_cache=cached,
            output_logits=True,
            return_dict_in_generate=True,
            **settings,
        )
    return out.sequences[:, ids.shape[1] :], torch.stack(out.logits, 1)
