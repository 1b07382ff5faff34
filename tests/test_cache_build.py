"""A cache is rebuilt when, and only when, something differs; whatever interrupts or damages it, the rest stays."""

import errno
import itertools
import json
import os
import shutil
import signal
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from decoders import decoder, letters
from disks import full

from lightning_steer.cache import Cache, ensure, locked, manifest, origin
from lightning_steer.cache import build as recording
from lightning_steer.cache.manifest import Manifest
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.positions import AllTokens

TEXTS = [f"{'abc de' * (i % 5)} {'xyz'[i % 3]}{'pqrst'[i % 5]}" for i in range(23)]
SHARDS = 8
TEMPLATE = "{% for m in messages %}<s>{{ m.role }}: {{ m.content }}{% endfor %} ?"


def save(folder: Path, seed: int = 0, template: str = TEMPLATE, bos: bool = True) -> Path:
    """A tiny model in Hugging Face form."""
    tokenizer = letters(bos)
    tokenizer.chat_template = template
    decoder("llama", seed=seed).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def configure(folder: Path, **settings: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("model"))


@pytest.fixture
def model(saved: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


def build(model: Path, folder: Path, texts: list[str] = TEXTS, texts_per_shard: int = 3, **settings: object) -> Cache:
    of_cache = {name: settings.pop(name) for name in ("dtype", "each_token") if name in settings}
    llm = LLM(str(model), **{"layers": [0, 2], **settings})  # type: ignore[arg-type]
    return ensure(llm, texts, folder, texts_per_shard=texts_per_shard, **of_cache)  # type: ignore[arg-type]


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file() and file.name != ".lock"}


def shards(folder: Path) -> dict[str, tuple[int, int]]:
    """Finished shards, and what tells whether they were written again."""
    return {file.name: (file.stat().st_ino, file.stat().st_mtime_ns) for file in folder.glob("[!.]*.safetensors")}


# ---- reused, or not


def test_what_matches_is_reused_without_loading_the_model(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    build(model, tmp_path / "cache")
    assert capsys.readouterr().out == f"Recording 23 texts in {tmp_path}/cache: 8 of 8 shards are left to do.\n"
    before = shards(tmp_path / "cache")
    elsewhere = model.rename(tmp_path / "elsewhere")
    monkeypatch.setattr(LLM, "load", lambda self: pytest.fail("loaded"))
    build(elsewhere, tmp_path / "cache", layers=[-4, -2])
    assert capsys.readouterr().out == ""
    assert shards(tmp_path / "cache") == before


Change = Callable[[Path], dict[str, object]]
"""Does something to the model's folder, or to what is asked for."""
CHANGES: dict[str, tuple[Change, str]] = {
    "another model of the same name": (lambda model: save(model, seed=1) and {}, "model weights"),
    "another configuration": (lambda model: configure(model, rms_norm_eps=0.1) or {}, "model configuration"),
    "another tokenizer": (lambda model: save(model, bos=False) and {}, "tokenizer"),
    "another template": (
        lambda model: save(model, template=TEMPLATE[:-1] + "!") and {},
        "chat template or system message",
    ),
    "another system message": (lambda _: {"system": "be kind"}, "chat template or system message"),
    "no chat": (lambda _: {"chat": False}, "chat template or system message"),
    "another part": (lambda _: {"part": "mlp"}, "part (it has block, not mlp)"),
    "other layers": (lambda _: {"layers": [0, 3]}, "layers (it has [0, 2], not [0, 3])"),
    "other positions": (
        lambda _: {"read_positions": AllTokens()},
        "positions (it has LastPromptToken(), not AllTokens())",
    ),
    "each token": (lambda _: {"each_token": True}, "rows for each token (it has False, not True)"),
    "another dtype": (lambda _: {"dtype": "float32"}, "dtype (it has bfloat16, not float32)"),
    "another precision": (
        lambda _: {"dtype_of_model": "bfloat16"},
        "model weights in memory, precision of the model (it has auto, not bfloat16)",
    ),
    "one text less": (lambda _: {"texts": TEXTS[:-1]}, "number of texts (it has 23, not 22), texts"),
    "texts in another order": (lambda _: {"texts": TEXTS[::-1]}, "texts"),
    "a blank moved to the next text": (
        lambda _: {"texts": [TEXTS[0][1:], " " + TEXTS[1], *TEXTS[2:]]},
        "texts",
    ),
    "other shards": (lambda _: {"texts_per_shard": 4}, "texts per shard (it has 3, not 4)"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_differs_is_named_and_recorded_again(
    change: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings: dict = {"chat": True, "layers": [0, 2], "read_positions": None}
    build(model, tmp_path / "cache", **settings)
    capsys.readouterr()
    act, words = CHANGES[change]
    settings |= act(model)
    if "dtype_of_model" in settings:  # its name is that of the cache's own
        llm = LLM(str(model), [0, 2], chat=True, dtype=settings.pop("dtype_of_model"))
        ensure(llm, TEXTS, tmp_path / "cache", texts_per_shard=3)
    else:
        build(model, tmp_path / "cache", **settings)
        build(model, tmp_path / "fresh", **settings)
        assert content(tmp_path / "cache") == content(tmp_path / "fresh")  # and nothing of the old one is left
    message = capsys.readouterr().out.splitlines()[0]
    assert message == f"The cache in {tmp_path}/cache differs in {words}: it stays until the new one is complete."


def test_an_older_format_is_recorded_again(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build(model, tmp_path)
    old = content(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(origin.Origin.__new__, "__defaults__", (origin.FORMAT + 1,))
        patch.setattr(manifest, "FORMAT", origin.FORMAT + 1)
        build(model, tmp_path)
    assert not content(tmp_path).keys() & old.keys() - {"manifest.json"}
    assert "of another version (its format is 1, and 2 is read): going by the shards alone" in capsys.readouterr().out


def test_weights_edited_in_memory_are_another_model(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def recorded() -> bool:
        return "Recording" in capsys.readouterr().out

    llm = LLM(str(model), [0, 2])
    plain = ensure(llm, TEXTS, tmp_path).layer(2)
    assert recorded()
    ensure(llm, TEXTS, tmp_path)  # loaded by now
    assert not recorded()
    with torch.no_grad():
        llm.model.model.embed_tokens.weight[5, 7] += 1.0
    edited = ensure(llm, TEXTS, tmp_path).layer(2)
    assert recorded()
    assert not torch.equal(edited, plain)
    assert torch.equal(ensure(LLM(str(model), [0, 2]), TEXTS, tmp_path).layer(2), plain)  # which is not what lies there
    assert recorded()
    adopted = LLM(str(model), [0, 2]).adopt(decoder("llama", seed=3), letters())
    assert not torch.equal(ensure(adopted, TEXTS, tmp_path).layer(2), plain)
    assert recorded()
    ensure(LLM("nowhere", [0, 2]).adopt(decoder("llama", seed=3), letters()), TEXTS, tmp_path)
    assert not recorded()


def test_tokenizer_in_use_is_the_same_tokenizer(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    llm = LLM(str(model), [0, 2])
    ensure(llm, TEXTS, tmp_path)
    capsys.readouterr()
    llm.generate(["a", "longer"], max_new_tokens=2)  # which sets its padding
    ensure(llm, TEXTS, tmp_path)
    assert capsys.readouterr().out == ""


# ---- damage

DAMAGE: dict[str, tuple[Callable[[Path, Path], object], str, str]] = {
    "a flipped byte": (lambda _, shard: flip(shard, -5), "is damaged", "shard 3 is damaged"),
    "a flipped byte in the header": (lambda _, shard: flip(shard, 20), "is damaged", "shard 3 is damaged"),
    "a shard cut short": (lambda _, shard: os.truncate(shard, 100), "is damaged", "shard 3 is damaged"),
    "an empty shard": (lambda _, shard: os.truncate(shard, 0), "is damaged", "shard 3 is damaged"),
    "a missing shard": (lambda _, shard: shard.unlink(), "is missing", "shard 3 is missing"),
    "a manifest cut short": (
        lambda path, _: os.truncate(path, 700),
        "manifest.json is truncated, damaged",
        "going by the shards alone",
    ),
    "an empty manifest": (
        lambda path, _: os.truncate(path, 0),
        "manifest.json is truncated, damaged",
        "going by the shards alone",
    ),
    "another file as manifest": (
        lambda path, _: path.write_text("[1]"),
        "manifest.json is truncated, damaged",
        "going by the shards alone",
    ),
    "no manifest": (lambda path, _: path.unlink(), "there is no cache in", "0 of 8 shards are left"),
}


def flip(file: Path, place: int) -> None:
    old = bytearray(file.read_bytes())
    old[place] ^= 4
    file.write_bytes(old)


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_said_when_reading_and_repaired_when_building(
    damage: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "cache"
    build(model, folder)
    whole, before = content(folder), shards(folder)
    shard = sorted(folder.glob("*-00003-*"))[0]
    act, reading, building = DAMAGE[damage]
    act(folder / "manifest.json", shard)
    with pytest.raises((ValueError, FileNotFoundError), match=reading) as caught:
        Cache(folder).layer(0)
    assert "record it with" in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises((ValueError, FileNotFoundError), match=reading):
        Cache(folder).verify()
    capsys.readouterr()
    build(model, folder)
    output = capsys.readouterr().out
    assert building in output
    assert content(folder) == whole
    after = shards(folder)
    assert {name for name in before if before[name] != after[name]} == (
        {shard.name} if "shard" in building[:5] else set()
    )


def test_damage_elsewhere_does_not_keep_rows_from_being_read(model: Path, tmp_path: Path) -> None:
    every = build(model, tmp_path).layer(2)
    flip(next(tmp_path.glob("*-00003-*")), -5)
    cache = Cache(tmp_path)
    assert torch.equal(cache.rows([0, 22, 8], [2])[0], every[[0, 22, 8]])
    with pytest.raises(ValueError, match=r"shard 3 of the cache .* is damaged"):
        cache.rows([9])


def test_no_byte_of_a_manifest_can_change_unnoticed(model: Path, tmp_path: Path) -> None:
    build(model, tmp_path)
    path = tmp_path / "manifest.json"
    whole, truth = path.read_bytes(), Manifest.read(tmp_path)
    noticed = 0
    for place in range(0, len(whole), 5):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            assert Manifest.read(tmp_path) == truth
        except ValueError:
            noticed += 1
    assert noticed > 0.99 * len(whole) / 5


# ---- a full disk


@pytest.mark.parametrize("file", ["shard", "manifest"])
def test_a_full_disk_leaves_the_old_cache_and_what_is_finished(
    file: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, fresh = tmp_path / "cache", tmp_path / "fresh"
    build(model, folder)
    old = content(folder)
    build(model, fresh, dtype="float32")
    aim = "manifest.json" if file == "manifest" else next(fresh.glob("*-00003-*")).name
    with monkeypatch.context() as disk:
        full(disk, aim)
        message = f"cannot write {folder}/{aim} .No space left on device.: make room"
        with pytest.raises(OSError, match=message) as caught:
            build(model, folder, dtype="float32")
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOSPC
    finished = {name: seen for name, seen in shards(folder).items() if name not in old}
    assert len(finished) == (SHARDS if file == "manifest" else 3)
    assert {name: content(folder)[name] for name in old} == old
    assert len(Cache(folder).layer(0)) == len(TEXTS)
    build(model, folder, dtype="float32")
    assert content(folder) == content(fresh)
    assert {name: seen for name, seen in shards(folder).items() if name in finished} == finished


def test_too_small_a_disk_is_refused_before_anything_is_recorded(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(model, tmp_path)
    old = content(tmp_path)
    disk = namedtuple("disk", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: disk(free=2 * 23 * 32 * 4 - 1))
    with pytest.raises(OSError, match=r"needs 0.0 GB more, and 0.0 GB are free: make room, or name another folder"):
        build(model, tmp_path, dtype="float32")
    assert content(tmp_path) == old
    monkeypatch.setattr(shutil, "disk_usage", lambda _: disk(free=2 * 23 * 32 * 4))
    build(model, tmp_path, dtype="float32")


def test_a_folder_that_is_a_file(model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="file is a file, where a folder is needed"):
        build(model, tmp_path / "file")


# ---- kills


def in_a_process(work: Callable[[], object]) -> int:
    """Start ``work`` in a process of its own; returns its id."""
    process = os.fork()
    if process:
        return process
    try:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        work()
        os._exit(0)
    except BaseException:
        os._exit(1)


def killed(process: int) -> bool:
    """Wait for it; whether it was killed, else it has finished."""
    _, status = os.waitpid(process, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def die_while(doing: str, number: int, work: Callable[[], object]) -> None:
    """Run ``work`` and be killed while it records, or writes, a shard for that time."""
    calls = itertools.count(1)
    recorded, synced = recording.record, os.fsync

    def record(*arguments: object) -> object:
        if next(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return recorded(*arguments)  # type: ignore[arg-type]

    def sync(descriptor: int) -> None:
        if next(calls) == number:
            os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        synced(descriptor)

    if doing == "recording":
        recording.record = record  # type: ignore[assignment]
    else:
        os.fsync = sync
    work()


@pytest.mark.parametrize("doing", ["recording", "writing"])
def test_killed_in_each_shard_it_ends_as_if_nothing_had_happened(doing: str, model: Path, tmp_path: Path) -> None:
    build(model, tmp_path / "whole")
    whole, folder, done = content(tmp_path / "whole"), tmp_path / "killed", dict[str, tuple[int, int]]()
    for number in range(SHARDS):  # each process makes one shard, the first one none, and is killed in the next
        last = 1 + (number > 0)
        assert killed(in_a_process(lambda last=last: die_while(doing, last, lambda: build(model, folder))))
        now = shards(folder)
        assert len(now) == number
        assert now.items() >= done.items()  # what was finished is what it was
        assert all(whole[name] == (folder / name).read_bytes() for name in now)
        assert not (folder / "manifest.json").exists()
        done = now
    build(model, folder)
    assert shards(folder).items() >= done.items()
    assert content(folder) == whole


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_at_each_renaming(after: bool, model: Path, tmp_path: Path) -> None:
    count = 4
    build(model, tmp_path / "old", dtype="float32")
    build(model, tmp_path / "new", texts_per_shard=6)
    old, new = content(tmp_path / "old"), content(tmp_path / "new")
    folder = Path(shutil.copytree(tmp_path / "old", tmp_path / "cache"))

    def die_at(moment: int) -> None:
        calls, rename = iter(range(100)), os.replace

        def replace(source: Path, target: Path) -> None:
            last = next(calls) == moment
            if after or not last:
                rename(source, target)
            if last:
                os.kill(os.getpid(), signal.SIGKILL)

        os.replace = replace
        build(model, folder, texts_per_shard=6)

    for moment in range(count + 1):
        shutil.rmtree(folder)
        shutil.copytree(tmp_path / "old", folder)
        assert killed(in_a_process(lambda moment=moment: die_at(moment)))
        now = content(folder)
        complete = after and moment == count
        assert Cache(folder).manifest.origin.dtype == ("bfloat16" if complete else "float32")
        assert all(now[name] == old[name] for name in old if name != "manifest.json")  # removed only afterwards
        Cache(folder).verify()
        done = shards(folder)
        build(model, folder, texts_per_shard=6)
        assert content(folder) == new
        assert {name: done[name] for name in new if name in done}.items() <= shards(folder).items()
        assert sum(name in done for name in new) == min(moment + after, count)


# ---- two at once


def test_a_second_process_waits_and_then_reads(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    held, hold = os.pipe()
    waits, wait = os.pipe()

    def wait_and_build() -> None:
        os.close(waits)
        os.read(held, 1)  # the other one holds the lock, which this process, forked before, does not share
        sys.stdout = os.fdopen(wait, "w", buffering=1)
        build(model, folder, texts_per_shard=6)

    process = in_a_process(wait_and_build)
    os.close(wait)
    with os.fdopen(waits) as reader:
        with locked(folder):
            os.write(hold, b"!")
            assert reader.readline() == f"Waiting for another process that is recording into {folder}.\n"
            assert not list(folder.glob("*.safetensors"))
            with pytest.raises(BlockingIOError, match="another process is recording into"), locked(folder, wait=False):
                pass
            assert os.waitpid(process, os.WNOHANG) == (0, 0), "it did not wait"
        assert "shards are left to do" in reader.read()
    assert not killed(process)
    Cache(folder).verify()
    os.close(held)
    os.close(hold)


def test_two_processes_at_once_build_one_cache(model: Path, tmp_path: Path) -> None:
    processes = [in_a_process(lambda: build(model, tmp_path / "cache")) for _ in range(3)]
    for process in processes:
        assert not killed(process)
    build(model, tmp_path / "alone")
    assert content(tmp_path / "cache") == content(tmp_path / "alone")


def test_a_text_that_is_too_long_is_refused_before_others_are_recorded(model: Path, tmp_path: Path) -> None:
    configure(model, max_position_embeddings=60)
    with pytest.raises(ValueError, match=r"text 7 has \d+ tokens, and .* takes 1 to 60"):
        build(model, tmp_path / "cache", [*"abcdefg", "a" * 80], texts_per_shard=2)
    assert not list((tmp_path / "cache").glob("*.safetensors"))
