"""The bfloat16 law in mixtures of experts: rounding that changes the choice of experts is not the steering's fault."""

import copy

import pytest
import torch
from decoders import FAMILIES, decoder, letters
from test_check import NotInHalfPrecision
from test_families import KEPT

from lightning_steer.check import Tool
from lightning_steer.check.laws import low_precision
from lightning_steer.check.tool import Bench
from lightning_steer.lm.language_model import LLM

MIXTURES = {"mixtral": FAMILIES["mixtral"], "qwen3_moe": KEPT["qwen3_moe"], "deepseek_v3": KEPT["deepseek_v3"]}
FLIPPED = [("mixtral", 3), ("mixtral", 7), ("qwen3_moe", 5), ("deepseek_v3", 1), ("deepseek_v3", 6)]
"""Random weights at which bfloat16 sends a token to other experts."""


def law(family: str, seed: int, tool: Tool) -> tuple[bool, str]:
    llm = LLM(family, 0).adopt(decoder(family, seed=seed, **MIXTURES[family]), letters())
    with torch.no_grad():
        return low_precision(Bench(llm, tool, 1, ("yes", "no")))


@torch.no_grad()
def test_rounding_does_change_which_experts_are_chosen() -> None:
    model, ids = decoder("mixtral", seed=3), torch.tensor([letters()("The weather was cold and the")["input_ids"]])
    lower = copy.deepcopy(model).to(torch.bfloat16)
    routes = [m(ids, output_router_logits=True).router_logits for m in (model, lower)]
    chosen = [torch.stack([layer.float().topk(2).indices.sort().values for layer in route]) for route in routes]
    assert (chosen[0] != chosen[1]).any()


@pytest.mark.parametrize(("family", "seed"), FLIPPED)
def test_the_law_holds_whatever_rounding_does_to_the_routes_and_says_where(family: str, seed: int) -> None:
    passed, detail = law(family, seed, Tool())
    assert passed
    assert "every token goes to all experts" in detail


@pytest.mark.parametrize("family", MIXTURES)
def test_a_fault_in_half_precision_is_still_found(family: str) -> None:
    assert not law(family, 0, NotInHalfPrecision())[0]
