"""The laws: each looks at one way in which steering silently goes wrong. The first line of its docstring names it.

One file, because it is the list: who asks what is checked reads it from top to bottom.
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from lightning_steer.check import long_laws, scoring_laws
from lightning_steer.check.tool import Bench
from lightning_steer.hooks import capture, inputs
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.positions import AllTokens, GeneratedTokens, Positions, TokensFrom
from lightning_steer.lm.windows import every_expert, small_copy


def zero_strength(bench: Bench) -> tuple[bool, str]:
    """Zero strength is bit-equal."""
    baseline, _ = bench.baseline
    with bench.steered(0 * bench.strengths()):
        steered = bench.tool.forward(bench.llm, *bench.padded("right"))
    return torch.equal(baseline, steered), "logits of a padded batch"


def arrives_exactly(bench: Bench) -> tuple[bool, str]:
    """A known edit arrives at its rows, tokens and layer, and nowhere below."""
    ids, mask = bench.padded("right")
    _, plain = bench.baseline
    names = list(plain)
    strength = bench.strengths() * torch.tensor([1, 0] * 2, device=bench.llm.device, dtype=bench.vector.dtype)
    with bench.steered(strength, TokensFrom(1)), capture(bench.llm.model, names) as captured:
        bench.tool.forward(bench.llm, ids, mask)
    below = all(torch.equal(captured[name], plain[name]) for name in names[:-1])
    index = torch.where(mask == 1, mask.cumsum(1) - 1, -1)
    expected = plain[names[-1]] + strength[:, None, None] * bench.vector * (index >= 1).unsqueeze(-1)
    real = mask.bool()
    differs = (captured[names[-1]] != expected).any(-1) & real
    tokens = int(((index >= 1) & (strength.unsqueeze(1) != 0)).sum())
    return (
        below and not differs.any(),
        f"{tokens} tokens of rows 0 and 2; {int(differs.sum())} wrong; below untouched: {below}",
    )


def strength_counts(bench: Bench) -> tuple[bool, str]:
    """Each row is steered by its own strength."""
    ids, mask = bench.padded("right")
    site = f"{bench.llm.blocks}.{bench.layer}"
    moved = [bench.baseline[1][site][:, 0].float()]
    for value in (1.0, 2.0):
        with bench.steered(bench.strengths(value)), capture(bench.llm.model, [site]) as captured:
            bench.tool.forward(bench.llm, ids, mask)
        moved.append(captured[site][:, 0].float())
    once, twice = ((m - moved[0]).norm(dim=1) for m in moved[1:])
    expected = bench.strengths().float() * bench.vector.float().norm()
    error = max(float((once / expected - 1).abs().max()), float((twice / (2 * expected) - 1).abs().max()))
    return error < 0.05, f"displacement off by {error:.1%} of what was asked for"


def batch_is_single(bench: Bench) -> tuple[bool, str]:
    """A row comes out the same in a batch and by itself."""
    ids, mask = bench.padded("right")
    with bench.steered(bench.strengths()):
        together = bench.tool.forward(bench.llm, ids, mask)
    return _rows_agree(bench, [together[i, : len(row)] for i, row in enumerate(bench.rows)])


def paddings_agree(bench: Bench) -> tuple[bool, str]:
    """Padding on the left, on the right and none give the same."""
    ids, mask = bench.padded("left")
    with bench.steered(bench.strengths()):
        left = bench.tool.forward(bench.llm, ids, mask)
    return _rows_agree(bench, [left[i, -len(row) :] for i, row in enumerate(bench.rows)])


def _rows_agree(bench: Bench, rows: list[Tensor]) -> tuple[bool, str]:
    all_same, worst_detail = True, ""
    for i, alone in enumerate(bench.single_rows):
        same, detail = bench.close(rows[i], alone)
        all_same, worst_detail = all_same and same, detail if not same or not worst_detail else worst_detail
    return all_same, worst_detail


def cache_is_no_cache(bench: Bench) -> tuple[bool, str]:
    """With a key-value cache and without the same comes out."""
    return _in_steps(bench, AllTokens())


def generated_tokens(bench: Bench) -> tuple[bool, str]:
    """Steering generated tokens moves them all, one by one or at once, and leaves the prompt alone."""
    row = bench.rows[0].unsqueeze(0)
    half = torch.tensor([row.shape[1] // 2], device=row.device)
    plain = bench.llm.model(row, use_cache=False).logits
    with bench.steered(bench.strengths()[:1], GeneratedTokens(), half):
        steered = bench.llm.model(row, use_cache=False).logits
    untouched, _ = bench.close(steered[:, : int(half)], plain[:, : int(half)])  # experts round by what else they get
    moved = bool(((plain - steered)[:, int(half) :].abs().amax(-1) > 0).all())
    same, detail = _in_steps(bench, GeneratedTokens())
    return untouched and moved and same, f"prompt untouched: {untouched}; all generated moved: {moved}; {detail}"


def _in_steps(bench: Bench, positions: Positions) -> tuple[bool, str]:
    row = bench.rows[0].unsqueeze(0)
    half = row.shape[1] // 2
    prompt = torch.tensor([half], device=row.device)
    with bench.steered(bench.strengths()[:1], positions, prompt):
        at_once = bench.llm.model(row, use_cache=False).logits
        out = bench.llm.model(row[:, :half], use_cache=True)
        steps = [out.logits]
        for i in range(half, row.shape[1]):
            out = bench.llm.model(row[:, i : i + 1], past_key_values=out.past_key_values, use_cache=True)
            steps.append(out.logits)
    return bench.close(torch.cat(steps, 1), at_once)


def capture_sees_the_edit(bench: Bench) -> tuple[bool, str]:
    """What is read is what the next layer sees."""
    ids, mask = bench.padded("right")
    site = f"{bench.llm.blocks}.{bench.layer}"
    with (
        bench.steered(bench.strengths()),
        bench.tool.read(bench.llm, bench.layer) as captured,
        inputs(bench.llm.model, f"{bench.llm.blocks}.{bench.layer + 1}") as next_input,
    ):
        bench.tool.forward(bench.llm, ids, mask)
    same = torch.equal(captured[site], next_input[0])
    return same, "the reading inside an edit against the next layer's input"


def low_precision(bench: Bench) -> tuple[bool, str]:
    """In bfloat16 a steered row stays near what float32 gives."""
    size = sum(p.numel() for p in bench.llm.model.parameters())
    if bench.llm.model.dtype != torch.float32 or size > 5e8:
        return True, "not run: the model is not in float32, or too large for a second copy"
    row, model, layer, note = bench.rows[0].unsqueeze(0), bench.llm.model, bench.layer, ""
    if expert_settings := every_expert(bench.llm.decoder.config):
        model, layer = small_copy(model, **expert_settings).to(bench.llm.device), 0
        depth = model.config.get_text_config().num_hidden_layers
        note = (
            f"; on a copy of {depth} layers in which every token goes to all experts: "
            "otherwise rounding alone changes which experts are chosen, and with them the logits"
        )
    logits = []
    for dtype in (torch.float32, torch.bfloat16):
        llm = bench.llm
        if model is not llm.model or dtype != torch.float32:
            llm = LLM(llm.llm, layer).adopt(copy.deepcopy(model).to(dtype), llm.tokenizer)
        vector, strength = bench.vector.to(dtype), torch.ones(1, device=llm.device, dtype=dtype)
        with bench.tool.steer(llm, layer, vector, strength, AllTokens(), bench.lengths()[:1]):
            logits.append(llm.model(row, use_cache=False).logits.float())
    difference = float((logits[0] - logits[1]).abs().max() / logits[0].abs().max())
    return difference < 0.1, f"largest difference {difference:.1%} of the logits' size{note}"


def nothing_left(bench: Bench) -> tuple[bool, str]:
    """No hook stays behind, also after an error."""
    before = _hooks(bench.llm.model)
    try:
        with bench.steered(bench.strengths()):
            raise ArithmeticError
    except ArithmeticError:
        pass
    remaining = _hooks(bench.llm.model) - before
    return remaining == 0, f"{remaining} hooks left"


def _hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


LAWS: tuple[Callable[[Bench], tuple[bool, str]], ...] = (
    zero_strength,
    arrives_exactly,
    strength_counts,
    batch_is_single,
    paddings_agree,
    cache_is_no_cache,
    generated_tokens,
    capture_sees_the_edit,
    low_precision,
    scoring_laws.scoring_is_a_plain_forward,
    scoring_laws.options_after_any_character,
    long_laws.logits_are_the_models_own,
    long_laws.long_prompts_are_plain_forwards,
    long_laws.long_rows_have_no_neighbours,
    long_laws.generation_needs_no_cache,
    scoring_laws.labels_are_distinct,
    nothing_left,
)
