"""Sessions of tiny models for the tests of the chat, and what a column must say, computed in another way."""

from pathlib import Path

import torch
from conftest import ROOT, rows
from decoders import decoder, letters

from lightning_steer.hooks import edit
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.tokens import MultipleChoice
from lightning_steer.methods import MERA, MeanDifference
from lightning_steer.vectors import SteeringVector, of
from lightning_steer.vectors.imported import ImportedVector

BASE = str(ROOT / "checkpoints/pocket/base")
TUNED = str(ROOT / "checkpoints/pocket/tuned")
TEMPLATE = "{% for turn in messages %}{{ turn.content }}{{ '?' if turn.role == 'user' else '.' }}{% endfor %}"


def tiny(family: str = "llama", layer: int = 1, chat: bool = False, **settings: object) -> LLM:
    """A random model that knows letters."""
    tokenizer = letters()
    if chat:
        tokenizer.chat_template = TEMPLATE
    return LLM("tiny", layer, chat=chat).adopt(decoder(family, **settings), tokenizer)


def direction(llm: LLM, strength: float = 2.0, seed: int = 1) -> SteeringVector:
    """A random vector about as long as the activations that it is added to."""
    (site,) = llm.sites
    method = MeanDifference(llm.width(site))
    scale = llm.activations([MultipleChoice("the cat")])[site].std()
    method.vector = scale * torch.randn(llm.width(site), generator=torch.Generator().manual_seed(seed))
    method.fitted = True
    return of(llm, {site: method}, strength, effect={"margin_change": {"value": 1.0, "low": 0.5, "high": 1.5, "n": 9}})


def imported(llm: LLM) -> SteeringVector:
    """The same vector as one of another tool, whose card names no model."""
    vector = direction(llm)
    imported_vector = ImportedVector(vector.card.sites[0].width)
    imported_vector.vector = next(method.vector for method in vector.maps)
    return SteeringVector([imported_vector], vector.card._replace(method="ImportedVector", model=None))


def threshold(llm: LLM) -> SteeringVector:
    """A fitted method whose strengths lie between 0 and 1, and which does nothing at 1."""
    (site,) = llm.sites
    return of(llm, {site: MERA(llm.width(site)).fit(rows(d=llm.width(site)))}, 0.1)


@torch.no_grad()
def alone(llm: LLM, text: str, shift: torch.Tensor, tokens: int, special: bool = True) -> str:
    """What the model writes after a text, one row, token by token, without a cache, ``shift`` added at its site."""
    ids = llm.tokenizer(text, add_special_tokens=special)["input_ids"]
    start, ends = len(ids), llm.model.generation_config.eos_token_id
    with edit(llm.model, {llm.sites[0]: lambda h: h + shift}):
        for _ in range(tokens):
            ids.append(int(llm.model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
            if ids[-1] == ends:
                break
    return llm.tokenizer.decode(ids[start:], skip_special_tokens=True)


def saved(llm: LLM, folder: Path) -> tuple[Path, Path]:
    """Write a model and a vector for it as a user has them."""
    llm.model.save_pretrained(folder / "model")
    llm.tokenizer.save_pretrained(folder / "model")
    read = LLM(str(folder / "model"), llm.layers[0])
    read.load()
    return folder / "model", direction(read).save(folder / "vector.safetensors")
