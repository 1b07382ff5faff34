"""A compiled model does not run hooks that come later: it is refused, and generating compiles none."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from decoders import decoder, letters
from torch import nn

from lightning_steer.errors import UserError
from lightning_steer.hooks import capture, edit, fan_out
from lightning_steer.lm.language_model import LLM


def network() -> nn.Sequential:
    return nn.Sequential(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)), nn.Linear(3, 3))


def whole(made: nn.Sequential) -> tuple[nn.Module, str]:
    made.compile(backend="eager")
    return made, "0.1"


def part(made: nn.Sequential) -> tuple[nn.Module, str]:
    made[0].compile(backend="eager")
    return made, "0.1"


def site(made: nn.Sequential) -> tuple[nn.Module, str]:
    made[0][1].compile(backend="eager")  # type: ignore[index]
    return made, "0.1:input"


def wrapped(made: nn.Sequential) -> tuple[nn.Module, str]:
    return torch.compile(made, backend="eager"), "_orig_mod.0.1"  # type: ignore[return-value]


@pytest.mark.parametrize("compiled", [whole, part, site, wrapped])
def test_a_model_that_was_compiled_before_is_refused(compiled: Callable[..., tuple[nn.Module, str]]) -> None:
    made, name = compiled(network())
    with pytest.raises(UserError, match="compiled"), edit(made, {name: lambda h: h}):
        pass
    with pytest.raises(UserError, match="compiled"), capture(made, [name]):
        pass
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in made.modules())


def test_copies_are_not_given_to_a_compiled_layer() -> None:
    made = network()
    made[1].compile(backend="eager")
    with (
        pytest.raises(UserError, match="compiled"),
        fan_out(made, ["0", "1"], 1, lambda: torch.zeros(2, dtype=torch.int64), True),
    ):
        pass
    with edit(made, {"0.1": lambda h: h}):  # what does not lie on the way may be compiled
        pass


def test_generating_compiles_nothing_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    llm = LLM("random", layers=[1]).adopt(decoder("llama"), letters())
    seen: list[dict[str, Any]] = []
    generate = llm.model.generate

    def watch(**settings: Any) -> Any:
        seen.append(settings)
        return generate(**settings)

    monkeypatch.setattr(llm.model, "generate", watch)
    llm.generate("who", 2, edits={llm.sites[0]: lambda h: h})
    llm.generate("who", 2, disable_compile=False)
    assert [settings["disable_compile"] for settings in seen] == [True, False]
