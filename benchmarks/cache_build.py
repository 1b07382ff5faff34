"""Cost of recording activations against the bare forward passes, and peak memory against the number of texts.

Prints the throughput of building a cache of all layers of a random 125M Llama (tokenising, hooks, storing, hashing and
writing included) as a share of that of the decoder alone, without its vocabulary head, on the very same batches;
interleaved in one process. Then the peak memory of building a cache of n and of 4n texts. About two minutes.
Bounds: at least 0.90 of the throughput; memory within 5 MB.

    OMP_NUM_THREADS=2 python benchmarks/cache_build.py
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from side_by_side import LLAMA, Timing, by_turns, language_model, say, seconds, sentence, size

from lightning_steer.cache import Build
from lightning_steer.lm.tokens import MultipleChoice, batches, collate

NARROW = {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 1, "head_dim": 8, "intermediate_size": 8}
TEXTS, REPEATS = 64, 7


class Texts(Sequence[str]):
    """Texts of 8 to 40 words, made when they are asked for."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, i: int) -> str:  # type: ignore[override]
        if i >= self.number:
            raise IndexError(i)
        return sentence(i, 8, 40)


def throughput(folder: Path) -> None:
    """Print the ratio."""
    llm, texts = language_model(list(range(LLAMA["num_hidden_layers"])), 512), Texts(TEXTS)
    rows = llm.rows([MultipleChoice(text) for text in texts])
    prepared = [collate(part, llm.pad, llm.model.dtype, llm.device) for part in batches(rows, llm.tokens_per_batch)]
    numbers = iter(range(100))

    def forward() -> None:
        with torch.inference_mode():
            for batch in prepared:
                llm.model.base_model(input_ids=batch.ids, use_cache=False)

    def recording() -> float:
        build = Build(llm, texts, folder / str(next(numbers)))  # its fingerprints are taken once for a model
        build.folder.mkdir()
        return seconds(lambda: complete(build))

    timing = by_turns(lambda: seconds(forward), recording, REPEATS, "cache")
    fixed, tokens = seconds(lambda: Build(llm, texts, folder)), sum(len(row.ids) for row in rows)
    say(
        "cache build",
        timing,
        ">= 0.90",
        f"recording all layers of a {size(llm)}, {tokens / timing.second:.0f} tokens/s, and {fixed:.2f} s of "
        "fingerprints once, as a share of the bare forward's throughput",
        fingerprints=round(fixed, 2),
    )


def complete(build: Build) -> None:
    """Record all shards, and finish."""
    for shard in range(build.shards):
        build.shard(shard)
    build.finish()


def memory(folder: Path) -> None:
    """Print the peaks; they can be measured on Linux only."""
    llm, peaks = language_model([0, 1, 2, 3], 512, **NARROW), []
    for count in (1024, 4096, 16384):  # the first warms up
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        build = Build(llm, Texts(count), folder / f"memory{count}", dtype="float32", texts_per_shard=256)
        build.folder.mkdir()
        complete(build)
        peaks.append(int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024)
        written = sum(file.stat().st_size for file in build.folder.iterdir()) / 1e6
    timing = Timing(peaks[2] - peaks[1], peaks[2] - peaks[1], peaks[2] - peaks[1], peaks[1], peaks[2], 1)
    told = f"MB more at the peak for 16,384 texts ({written:.0f} MB of cache) than for 4,096"
    say("cache build, memory", timing, "<= 5", told)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        throughput(Path(name))
        memory(Path(name))
