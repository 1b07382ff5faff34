"""What the speed comparisons share: a random Llama over a vocabulary of words, and two ways timed by turns.

Not a benchmark itself. On a CPU the models have 125 million float32 parameters, on a GPU 1.1 billion in bfloat16.
"""

import json
import logging
import platform
import random
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tqdm.auto import tqdm
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from lightning_steer.lm.language_model import LLM

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
WORDS = [f"w{i}" for i in range(5000)]
LLAMA = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 2048}
if DEVICE == "cuda":
    LLAMA = {"hidden_size": 2048, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 5504}
logging.getLogger("transformers").setLevel(logging.ERROR)


def words_tokenizer() -> PreTrainedTokenizerFast:
    """A token for every word."""
    inner = Tokenizer(WordLevel({word: i for i, word in enumerate([*WORDS, "<unk>"])}, unk_token="<unk>"))
    inner.pre_tokenizer = Whitespace()  # type: ignore[assignment]
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", eos_token="<unk>")


def language_model(layers: int | list[int], tokens_per_batch: int = 8192, **architecture: Any) -> LLM:
    """A random Llama, or another family called ``model_type``, steered or read at some layers."""
    torch.manual_seed(0)
    family = architecture.pop("model_type", "llama")
    settings = {"vocab_size": 32000, "num_key_value_heads": None, **(architecture or LLAMA)}
    dtype = torch.bfloat16 if DEVICE == "cuda" else torch.float32
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **settings), dtype=dtype)
    model = model.to(DEVICE).eval().requires_grad_(False)  # type: ignore[arg-type]
    return LLM("random", layers=layers, tokens_per_batch=tokens_per_batch).adopt(model, words_tokenizer())


def sentence(seed: int, shortest: int, longest: int) -> str:
    """Words drawn at random, as many as a seed says."""
    draw = random.Random(seed)
    return " ".join(draw.choices(WORDS, k=draw.randint(shortest, longest)))


def size(llm: LLM) -> str:
    """How large the model is, in words."""
    config = llm.model.config
    count = sum(p.numel() for p in llm.model.parameters()) / 1e6
    return f"{count:.0f}M-parameter Llama of {config.num_hidden_layers} layers"


def seconds(work: Callable[[], Any]) -> float:
    """How long it takes, what it has set going on a GPU included."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


class Timing(NamedTuple):
    """Two ways of doing the same, ``n`` times each."""

    ratio: float
    """Median over neighbouring runs: the first over the second."""
    low: float
    high: float
    """The smallest and the largest of these ratios."""
    first: float
    """Median seconds."""
    second: float
    n: int


def turns(
    first: Callable[[], float], second: Callable[[], float], repeats: int, name: str
) -> list[tuple[float, float]]:
    """Seconds of two ways in turn, either going first as often; both tell their own, and run once before."""
    for work in (first, second):
        work()
    return [
        (first(), second()) if number % 2 else (second(), first())[::-1]
        for number in tqdm(range(repeats), desc=name, leave=False)
    ]


def by_turns(first: Callable[[], float], second: Callable[[], float], repeats: int, name: str) -> Timing:
    """Two ways timed in turn, compared."""
    return compared(turns(first, second, repeats, name))


def compared(pairs: Sequence[tuple[float, float]]) -> Timing:
    """What neighbouring runs of two ways took, in seconds."""
    ratios = sorted(a / b for a, b in pairs)
    a, b = (statistics.median(column) for column in zip(*pairs, strict=True))
    return Timing(statistics.median(ratios), ratios[0], ratios[-1], a, b, len(pairs))


def say(benchmark: str, timing: Timing, bound: str, told: str, **more: Any) -> None:
    """Print a line for machines, then a sentence; ``bound`` is for example ``<= 1.02``, or empty."""
    sign, value = bound.split() if bound else ("", "nan")
    holds = (timing.ratio <= float(value) if sign == "<=" else timing.ratio >= float(value)) if bound else None
    rounded = {name: float(f"{part:.4g}") for name, part in timing._asdict().items()}
    where = {"threads": torch.get_num_threads(), "device": DEVICE, "torch": torch.__version__}
    print(
        json.dumps({"benchmark": benchmark, **rounded, "bound": bound, "holds": holds, "told": told, **more, **where})
    )
    device = f"{where['threads']} threads" if DEVICE == "cpu" else torch.cuda.get_device_name()
    against = f" (bound {bound})" if bound else ""
    print(
        f"{told}: {timing.ratio:.3f}{against}; single runs {timing.low:.3f} to {timing.high:.3f}, "
        f"n = {timing.n}, {device}, {platform.machine()}"
    )
