"""Build a cache shard by shard, on any number of processes, resuming from finished shards.

A shard's content and name depend only on its texts and the model. The manifest is written last and replaces an
older cache's atomically; only then are the older cache's shards removed.
"""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save
from tqdm.auto import tqdm

from lightning_steer.cache.files import digest, digests, locked, write
from lightning_steer.cache.manifest import NAME, SHARD, Entry, Manifest, read_shard
from lightning_steer.cache.origin import origin_of, text_of
from lightning_steer.cache.read import Cache
from lightning_steer.cache.record import DTYPES, record, tokens_of
from lightning_steer.errors import UserError
from lightning_steer.escapes import say
from lightning_steer.files import PART, is_regular, remove_dead_part
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.tokens import MultipleChoice


def ensure(
    llm: LLM,
    questions: Sequence[MultipleChoice | str],
    folder: str | Path,
    each_token: bool = False,
    dtype: str = "bfloat16",
    texts_per_shard: int | None = None,
    device: torch.device | str | None = None,
) -> Cache:
    """Return the cache of these activations: reuses the folder's cache if it matches, else records what is missing.

    Prints what it records, and why. Other processes that need the same folder wait.

    Args:
        llm: defines layers, part and read tokens; it is loaded only if something must be recorded.
        questions: texts, or prompts with options; the first option is read with the prompt.
        folder: the cache's folder.
        each_token: keep a row for each token read, not a text's mean.
        dtype: ``bfloat16``, ``float32``, or ``float16``, scaled so that nothing overflows.
        texts_per_shard: texts that are recorded, written and, when interrupted, lost together; None for 1024, or 32
            if each token is kept. Memory grows only with it.
        device: device for recording; None keeps the model's device.

    Raises:
        ValueError: a setting, a text or the model is unusable.
        OSError: the folder cannot be written; finished shards and an older cache remain.
    """
    fresh = llm.tokenizer is None
    with locked(Path(folder)):
        build = Build(llm, questions, folder, each_token, dtype, texts_per_shard, fresh)
        cache = build.reuse()
        if cache is None and fresh:  # its weights in memory may have to be compared
            llm.load()
            build = Build(llm, questions, folder, each_token, dtype, texts_per_shard, fresh)
            cache = build.reuse()
        if cache is not None:
            return cache
        if device is not None and llm.loading[2] is None:
            llm.to(device)
        build.announce()
        for number in tqdm(range(build.shards), desc="recording", unit="shard", leave=False, disable=None):
            build.shard(number)
        return build.finish()


class Build:
    """A cache being built.

    The arguments are those of :func:`ensure`; ``fresh`` means that the model was not in memory before, where it could
    have been changed.
    """

    def __init__(
        self,
        llm: LLM,
        questions: Sequence[MultipleChoice | str],
        folder: str | Path,
        each_token: bool = False,
        dtype: str = "bfloat16",
        texts_per_shard: int | None = None,
        fresh: bool = False,
    ) -> None:
        size = (32 if each_token else 1024) if texts_per_shard is None else texts_per_shard
        if dtype not in DTYPES:
            raise UserError(f"activations are stored as {', '.join(DTYPES)}, not {dtype!r}")
        if size < 1 or not len(questions):
            raise UserError(f"at least 1 text is recorded, and to a shard, not {len(questions)} and {size}")
        self.llm, self.questions, self.folder = llm, questions, Path(folder)
        self.origin = origin_of(llm, questions, each_token, dtype, size, fresh)
        self.shards = -(-len(questions) // size)
        self.finished: dict[int, str] = {}  # sha256 of the finished shards

    def reuse(self) -> Cache | None:
        """Return the folder's cache if its origin and every shard's sha256 match; else None."""
        try:
            manifest = Manifest.read(self.folder)
        except (FileNotFoundError, ValueError):
            return None
        files = [self.folder / entry.file for entry in manifest.shards]
        if (
            manifest.origin.differences(self.origin)
            or not all(map(is_regular, files))
            or digests(files) != [entry.sha256 for entry in manifest.shards]
        ):
            return None
        self._tidy(files)
        return Cache(self.folder, verified=True)

    def look(self, numbers: range) -> list[int]:
        """Find the finished ones among these shards; return the numbers of damaged ones."""
        files = sorted(self.folder.glob(f"{self.origin.key}-*"))
        files = [file for file in files if SHARD.fullmatch(file.name) and is_regular(file)]
        files_of = {int(file.name.split("-")[1]): file for file in files}
        files_of = {number: files_of[number] for number in numbers if number in files_of}
        hashes = dict(zip(files_of, digests(list(files_of.values())), strict=True))
        intact = {number: sha256 for number, sha256 in hashes.items() if files_of[number] == self._path(number, sha256)}
        self.finished |= intact
        return sorted(files_of.keys() - intact.keys())

    def announce(self) -> None:
        """Inspect the folder and print what will be recorded, and why; raise OSError if the disk is too full."""
        damaged, missing = self.look(range(self.shards)), list[int]()
        try:
            differences = Manifest.read(self.folder).origin.differences(self.origin)
            if differences:
                say(f"The cache in {self.folder} differs in {differences}: it stays until the new one is complete.")
            else:
                missing = sorted(set(range(self.shards)) - set(self.finished) - set(damaged))
        except FileNotFoundError:
            pass
        except ValueError as error:
            say(f"{error}: going by the shards alone.")
        for state, numbers in (("damaged", damaged), ("missing", missing)):
            if numbers:
                say(f"Of the cache in {self.folder} shard {', '.join(map(str, numbers))} is {state}.")
        for number in set(range(self.shards)) - set(self.finished):
            tokens_of(self.llm, *self._texts(number))  # reject unreadable texts before hours of recording
        remaining = self.shards - len(self.finished)
        say(
            f"Recording {self.origin.count} texts in {self.folder}: {remaining} of {self.shards} shards are left to do."
        )
        self._check_room(remaining)

    def shard(self, number: int) -> None:
        """Record a shard, unless it is finished; raise ValueError or OSError."""
        if number in self.finished:
            return
        texts, first = self._texts(number)
        self.llm.model.eval()
        tensors = record(self.llm, texts, first, self.origin.each_token, self.origin.dtype)
        content = save(tensors._asdict())
        sha256 = digest(content)
        write(self._path(number, sha256), content)
        self.finished[number] = sha256

    def _texts(self, number: int) -> tuple[list[str], int]:
        """Return a shard's texts, and the number of the first one."""
        first, end = number * self.origin.texts_per_shard, (number + 1) * self.origin.texts_per_shard
        return [text_of(self.questions[i]) for i in range(first, min(end, self.origin.count))], first

    def finish(self) -> Cache:
        """Write the manifest, which makes the shards the folder's cache; then remove other files."""
        absent = sorted(set(range(self.shards)) - set(self.finished))
        if absent:
            raise UserError(
                f"shard {absent[0]} of {self.shards} was recorded by no process: leave use_distributed_sampler false "
                "and limit_predict_batches alone"
            )
        files = [self._path(number, self.finished[number]) for number in range(self.shards)]
        entries = [Entry(f.name, self.finished[i], read_shard(f)[0].shape[1]) for i, f in enumerate(files)]
        width = self.llm.width(self.llm.sites[0])
        Manifest(self.origin, self.llm.llm, self.llm.sites, width, entries).write(self.folder)
        self._tidy(files)
        return Cache(self.folder, verified=True)

    def _tidy(self, files: list[Path]) -> None:
        """Remove files that older caches and killed processes left."""
        for file in set(self.folder.iterdir()) - set(files):
            part_file = re.fullmatch(PART, file.name)
            if SHARD.fullmatch(file.name):
                file.unlink(missing_ok=True)
            elif part_file and (SHARD.fullmatch(part_file["name"]) or part_file["name"] == NAME):
                remove_dead_part(file)

    def _path(self, number: int, sha256: str) -> Path:
        return self.folder / f"{self.origin.key}-{number:05d}-{sha256[:12]}.safetensors"

    def _check_room(self, remaining: int) -> None:
        """Check free disk space for one row per text; the number of tokens is unknown so far."""
        rows = min(remaining * self.origin.texts_per_shard, self.origin.count)
        size = rows * len(self.llm.sites) * self.llm.width(self.llm.sites[0]) * DTYPES[self.origin.dtype].itemsize
        free = shutil.disk_usage(self.folder).free
        if size > free:
            raise OSError(
                f"the cache in {self.folder} needs {size / 1e9:.1f} GB more, and {free / 1e9:.1f} GB are free: make "
                "room, or name another folder, fewer layers or fewer texts"
            )
