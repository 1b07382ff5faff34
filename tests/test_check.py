"""The conformance check passes what is right and finds what is planted."""

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from decoders import FAMILIES, GROUPED, decoder, letters
from test_continuations import drops_unknown
from torch import Tensor

from lightning_steer.__main__ import main
from lightning_steer.check import LAWS, Tool, check
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.positions import AllTokens, GeneratedTokens, Positions, TokensFrom
from lightning_steer.lm.tokens import MultipleChoice
from lightning_steer.lm.windows import masks


def language_model(family: str, **settings: object) -> LLM:
    return LLM(family, 0).adopt(decoder(family, **settings), letters())  # type: ignore[arg-type]


def failures(tool: Tool, family: str = "llama") -> set[str]:
    verdicts = check(language_model(family), tool)
    assert len(verdicts) == len(LAWS)
    return {law.__name__ for law, verdict in zip(LAWS, verdicts, strict=True) if not verdict.passed}


@pytest.mark.parametrize("family", FAMILIES)
def test_all_laws_hold_in_every_family(family: str) -> None:
    failed = [verdict for verdict in check(language_model(family)) if not verdict.passed]
    assert not failed


class RowZeroOnly(Tool):
    def steer(
        self, llm: LLM, layer: int, vector: Tensor, strength: Tensor, positions: Positions, prompt: Tensor
    ) -> AbstractContextManager[None]:
        return super().steer(llm, layer, vector, strength * (torch.arange(len(strength)) == 0), positions, prompt)


class LostInACopy(Tool):
    """In place, but on what reshape has copied."""

    @contextmanager
    def steer(
        self, llm: LLM, layer: int, vector: Tensor, strength: Tensor, positions: Positions, prompt: Tensor
    ) -> Iterator[None]:
        def hook(_m: object, _i: object, h: Tensor) -> None:
            h.transpose(0, 1).reshape(-1, h.shape[-1]).add_(strength[0] * vector)

        handle = llm.model.get_submodule(f"{llm.blocks}.{layer}").register_forward_hook(hook)
        yield
        handle.remove()


class GeneratedTokensMissed(Tool):
    @contextmanager
    def steer(
        self, llm: LLM, layer: int, vector: Tensor, strength: Tensor, positions: Positions, prompt: Tensor
    ) -> Iterator[None]:
        def hook(_m: object, _i: object, h: Tensor) -> Tensor:
            return h if h.shape[1] == 1 else h + strength[:, None, None] * vector

        handle = llm.model.get_submodule(f"{llm.blocks}.{layer}").register_forward_hook(hook)
        try:
            yield
        finally:
            handle.remove()


class PromptSteeredToo(Tool):
    def steer(
        self, llm: LLM, layer: int, vector: Tensor, strength: Tensor, positions: Positions, prompt: Tensor
    ) -> AbstractContextManager[None]:
        return super().steer(
            llm, layer, vector, strength, AllTokens() if isinstance(positions, GeneratedTokens) else positions, prompt
        )


class OneTokenLate(Tool):
    def steer(
        self, llm: LLM, layer: int, vector: Tensor, strength: Tensor, positions: Positions, prompt: Tensor
    ) -> AbstractContextManager[None]:
        late = TokensFrom(positions.offset + 1) if isinstance(positions, TokensFrom) else positions
        return super().steer(llm, layer, vector, strength, late, prompt)


class WrongLayer(Tool):
    def steer(
        self, llm: LLM, layer: int, vector: Tensor, strength: Tensor, positions: Positions, prompt: Tensor
    ) -> AbstractContextManager[None]:
        return super().steer(llm, layer + 1, vector, strength, positions, prompt)


class StrengthIgnored(Tool):
    def steer(
        self, llm: LLM, layer: int, vector: Tensor, strength: Tensor, positions: Positions, prompt: Tensor
    ) -> AbstractContextManager[None]:
        return super().steer(llm, layer, vector, torch.ones_like(strength), positions, prompt)


class OneStrengthForAll(Tool):
    def steer(
        self, llm: LLM, layer: int, vector: Tensor, strength: Tensor, positions: Positions, prompt: Tensor
    ) -> AbstractContextManager[None]:
        return super().steer(llm, layer, vector, strength[:1].expand_as(strength), positions, prompt)


class LeavesItsHook(Tool):
    @contextmanager
    def steer(
        self, llm: LLM, layer: int, vector: Tensor, strength: Tensor, positions: Positions, prompt: Tensor
    ) -> Iterator[None]:
        handle = llm.model.get_submodule(f"{llm.blocks}.{layer}").register_forward_hook(lambda *_: None)
        with super().steer(llm, layer, vector, strength, positions, prompt):
            yield
        handle.remove()


class ReadsBeforeTheEdit(Tool):
    @contextmanager
    def read(self, llm: LLM, layer: int) -> Iterator[dict[str, Tensor]]:
        seen: dict[str, Tensor] = {}
        site = f"{llm.blocks}.{layer}"

        def hook(_m: object, _i: object, h: Tensor) -> None:
            seen[site] = h

        handle = llm.model.get_submodule(site).register_forward_hook(hook, prepend=True)
        yield seen
        handle.remove()


class PadsInTheScore(Tool):
    def score(self, llm: LLM, questions: Sequence[MultipleChoice]) -> Tensor:
        scores = super().score(llm, questions)
        for i, question in enumerate(questions):
            longest = max(map(len, question.choices))
            for j, option in enumerate(question.choices):
                ids = llm.tokenizer(question.prompt + option)["input_ids"]
                padded = torch.tensor([ids + [llm.pad] * (longest - len(option))])
                logp = llm.model(padded).logits[0].log_softmax(-1)
                start = len(ids) - len(option)
                scores[i, j] = sum(logp[k - 1, padded[0, k]] for k in range(start, padded.shape[1]))
        return scores


class TrustsOffsets(Tool):
    """Finds an option by character offsets, which are shifted where the tokenizer drops characters."""

    def score(self, llm: LLM, questions: Sequence[MultipleChoice]) -> Tensor:
        scores = super().score(llm, questions)
        for i, question in enumerate(questions):
            for j, option in enumerate(question.choices):
                encoded = llm.tokenizer(question.prompt + option, return_offsets_mapping=True)
                ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
                logp = llm.model(torch.tensor([ids])).logits[0].log_softmax(-1)
                own = [k for k, (_, end) in enumerate(offsets) if end > len(question.prompt)]
                scores[i, j] = sum(logp[k - 1, ids[k]] for k in own)
        return scores


class NotInHalfPrecision(Tool):
    def steer(
        self, llm: LLM, layer: int, vector: Tensor, strength: Tensor, positions: Positions, prompt: Tensor
    ) -> AbstractContextManager[None]:
        return super().steer(llm, layer, vector, strength * (llm.model.dtype == torch.float32), positions, prompt)


class NoPositions(Tool):
    def forward(self, llm: LLM, ids: Tensor, mask: Tensor) -> Tensor:
        return llm.model(input_ids=ids, attention_mask=mask, use_cache=False).logits


class NoMask(Tool):
    def forward(self, llm: LLM, ids: Tensor, mask: Tensor) -> Tensor:
        return llm.model(input_ids=ids, use_cache=False).logits


class SeesWithoutWindows(Tool):
    """A prepared mask in place of the model's windows."""

    def score(self, llm: LLM, questions: Sequence[MultipleChoice]) -> Tensor:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("lightning_steer.lm.decoder.masks", lambda _config, _form, mask, _position: mask)
            return super().score(llm, questions)


class CountsWindowsInSlots(Tool):
    def score(self, llm: LLM, questions: Sequence[MultipleChoice]) -> Tensor:
        def slots(config: Any, form: Sequence[str], mask: Tensor, position: Tensor) -> Any:
            return masks(config, form, mask, torch.arange(position.shape[1]).expand_as(position))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("lightning_steer.lm.decoder.masks", slots)
            return super().score(llm, questions)


class WindowsOfABatchLost(Tool):
    """Right for a row by itself; a batch is given a mask of its own."""

    def forward(self, llm: LLM, ids: Tensor, mask: Tensor) -> Tensor:
        causal = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool).tril() & mask.bool()[:, None, None, :]
        added = torch.zeros(causal.shape).masked_fill(~causal, torch.finfo(torch.float32).min)
        position = (mask.cumsum(1) - 1).clamp_min(0)
        return llm.model(input_ids=ids, attention_mask=added, position_ids=position, use_cache=False).logits


class OneTokenMeansGenerated(Tool):
    """Takes every pass of one token for a generated one, and every other for a prompt."""

    @contextmanager
    def steer(
        self, llm: LLM, layer: int, vector: Tensor, strength: Tensor, positions: Positions, prompt: Tensor
    ) -> Iterator[None]:
        def hook(_m: object, _i: object, h: Tensor) -> Tensor:
            steered = (h.shape[1] == 1) == isinstance(positions, GeneratedTokens)
            return h + strength[:, None, None] * vector if steered else h

        handle = llm.model.get_submodule(f"{llm.blocks}.{layer}").register_forward_hook(hook)
        try:
            yield
        finally:
            handle.remove()


FAULTS: list[tuple[type[Tool], str, str]] = [
    (RowZeroOnly, "llama", "arrives_exactly"),
    (LostInACopy, "llama", "arrives_exactly"),
    (GeneratedTokensMissed, "llama", "cache_is_no_cache"),
    (PromptSteeredToo, "llama", "generated_tokens"),
    (OneTokenLate, "llama", "arrives_exactly"),
    (WrongLayer, "llama", "arrives_exactly"),
    (StrengthIgnored, "llama", "zero_strength"),
    (OneStrengthForAll, "llama", "strength_counts"),
    (LeavesItsHook, "llama", "nothing_left"),
    (ReadsBeforeTheEdit, "llama", "capture_sees_the_edit"),
    (PadsInTheScore, "llama", "scoring_is_a_plain_forward"),
    (NotInHalfPrecision, "llama", "low_precision"),
    (NoPositions, "gpt2", "paddings_agree"),
    (NoMask, "llama", "paddings_agree"),
    (SeesWithoutWindows, "mistral", "long_prompts_are_plain_forwards"),
    (SeesWithoutWindows, "mistral", "long_rows_have_no_neighbours"),
    (CountsWindowsInSlots, "mistral", "long_prompts_are_plain_forwards"),
    (WindowsOfABatchLost, "mistral", "long_rows_have_no_neighbours"),
    (OneTokenMeansGenerated, "llama", "generation_needs_no_cache"),
]


@pytest.mark.parametrize(
    ("fault", "family", "law"), FAULTS, ids=[f"{fault.__name__}-{law}" for fault, _, law in FAULTS]
)
def test_a_planted_fault_is_found(fault: type[Tool], family: str, law: str) -> None:
    assert law in failures(fault(), family)


def test_what_only_long_prompts_show_is_found_by_their_laws_alone() -> None:
    laws = {"long_prompts_are_plain_forwards", "long_rows_have_no_neighbours"}
    assert failures(SeesWithoutWindows(), "mistral") == laws


def test_a_head_without_the_models_scale_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    llm = LLM("cohere", 0).adopt(decoder("cohere", **GROUPED, logit_scale=0.3), letters())

    def by_hand(model: Any, _decoders: object, h: Tensor, tokens: Tensor | None = None) -> Tensor:
        logits = model.get_output_embeddings()(h).float()
        return logits if tokens is None else logits[:, tokens]

    monkeypatch.setattr("lightning_steer.lm.head.logits", by_hand)
    failed = {verdict.law for verdict in check(llm) if not verdict.passed}
    assert "Logits are the model's own, with its scales, caps and multipliers" in failed


def test_check_says_where_long_windows_were_tried() -> None:
    details = [v.detail for v in check(language_model("mistral")) if "longer than every window" in v.law]
    assert len(details) == 2
    assert all("sliding_window 4096: on a copy of 2 layers with a window of 16" in detail for detail in details)
    details = [v.detail for v in check(language_model("mistral", sliding_window=64)) if "longer than every" in v.law]
    assert all(detail.startswith("sliding_window 64;") for detail in details)


def test_offsets_that_a_tokenizer_shifts_are_found() -> None:
    llm = LLM("llama", 0).adopt(decoder("llama", vocab_size=96), drops_unknown())
    failed = {tool: [v.law for v in check(llm, tool()) if not v.passed] for tool in (Tool, TrustsOffsets)}
    assert not failed[Tool]
    (law,) = failed[TrustsOffsets]
    assert "emoji" in law


def test_labels_that_begin_alike_are_found() -> None:
    verdicts = check(language_model("llama"), labels=("yes", "yesterday"))
    assert "begin with the same tokens" in next(v for v in verdicts if not v.passed).detail


def test_the_last_layer_cannot_be_followed() -> None:
    with pytest.raises(ValueError, match="layer must lie between 0 and 2, not 3"):
        check(language_model("llama"), layer=3)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    decoder("llama").save_pretrained(tmp_path)
    letters().save_pretrained(tmp_path)
    assert main(["check", "--llm", str(tmp_path)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert len([line for line in printed if line.startswith("ok  ")]) == len(LAWS)
    assert printed[-1].endswith("all laws hold")
    assert main(["check", "--llm", str(tmp_path), "--labels", "yes", "yesterday"]) == 1
    assert main(["check", "--llm", str(tmp_path / "nowhere")]) == 2


@pytest.mark.skipif(
    "LIGHTNING_STEER_MODELS" not in os.environ, reason="LIGHTNING_STEER_MODELS names no folder of models"
)
def test_a_real_model() -> None:
    llm = LLM(os.environ["LIGHTNING_STEER_MODELS"] + "/stories260k", 0)
    assert all(verdict.passed for verdict in check(llm))


@pytest.mark.parametrize("device", ["nowhere", "cuda:99", "meta:x"])
def test_a_device_that_is_not_there_is_refused_before_anything_is_loaded(
    device: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "--llm", "no/such/model", "--device", device]) == 2
    assert f"--device {device!r} cannot be used here" in capsys.readouterr().err
