"""Tables, JSON lines and tensors that are not what a command reads: columns, encodings, names, shapes, dtypes."""

import torch
from bad_commands import BASES, FILES, D, M
from bad_files import LABELLED, PAIRS, STEREOSET, lines, pairs
from bad_input import Case
from safetensors.torch import save

SITE = "model.layers.2"
LABELS = D + "source.init_args.labels"
TEMPLATE = D + "source.init_args.template"


def table(name: str, *more: str) -> tuple[str, ...]:
    return (*(argument.replace("x.jsonl", name) for argument in LABELLED), *more)


def source(kind: str, **settings: str) -> tuple[str, ...]:
    return (
        *(*BASES["behaviour"], f"--{D}source={kind}"),
        *(f"--{D}source.init_args.{name}={value}" for name, value in settings.items()),
    )


CSV = "text,label\nx,a\ny,b\n"
HALVES = source("HalvesFile", path="x.json", behaviour="b", first_half_positive="true")
PROMPTS = (*BASES["unsteered"], f"--{D}file=x.jsonl")
NEUTRAL = (*BASES["behaviour"], f"--{D}reference_texts=n.jsonl")
VECTOR = (*BASES["responses"], f"--{M}method=null", f"--{M}steering=v.safetensors")
TEXTS: list[tuple[str, tuple[str, ...], str, str | bytes, tuple[str, ...]]] = [
    ("a header alone", table("x.csv"), "x.csv", "text,label\n", ("x.csv", "no rows")),
    ("a row too short", table("x.csv"), "x.csv", "text,label\nx,a\ny\n", ("row 3", "text, label")),
    ("a row too long", table("x.tsv"), "x.tsv", "text\tlabel\nx\ta\tz\n", ("row 2", "text, label")),
    ("a quote without an end", table("x.csv"), "x.csv", 'text,label\n"x,a\n', ("x.csv", "end of data")),
    ("a column twice", table("x.csv"), "x.csv", "text,text,label\nx,y,a\n", ("x.csv", "'text' twice")),
    ("Latin-1", table("x.csv"), "x.csv", "text,label\ncaf\xe9,a\n".encode("latin-1"), ("x.csv", "UTF-8")),
    ("UTF-16", table("x.csv"), "x.csv", CSV.encode("utf-16"), ("x.csv", "UTF-8")),
    ("semicolons", table("x.csv"), "x.csv", CSV.replace(",", ";"), ("x.csv", "'label'", "text;label")),
    ("a blank label", table("x.csv"), "x.csv", "text,label\nx,\n", ("row 1", "''", "known are")),
    ("a label in capitals", table("x.csv"), "x.csv", "text,label\nx,A\n", ("row 1", "'A'", "known are")),
    ("a look-alike label", table("x.csv"), "x.csv", "text,label\nx,\u0430\n", ("row 1", "known are")),
    ("an unknown kind", table("x.xlsx"), "x.xlsx", b"PK\x03\x04", (".xlsx", ".csv")),
    ("a damaged Parquet file", table("x.parquet"), "x.parquet", b"PAR1", ("x.parquet", "damaged")),
    ("a model's folder", table("decoder"), "x.csv", CSV, ("decoder", "table")),
    ("a template without a column", table("x.csv", f"--{TEMPLATE}=hello"), "x.csv", CSV, ("'hello'", "column")),
    ("a template of another table", table("x.csv", f"--{TEMPLATE}={{word}}"), "x.csv", CSV, ("'word'", "text, label")),
    ("a single label", table("x.csv", f"--{LABELS}={{a: [a]}}"), "x.csv", CSV, ("['a']", "at least 2")),
    ("one word for two labels", table("x.csv", f"--{LABELS}={{a: [x], b: [x]}}"), "x.csv", CSV, ("'x'", "both")),
    ("a label without words", table("x.csv", f"--{LABELS}={{a: [], b: [b]}}"), "x.csv", CSV, ("'a'", "[]")),
    ("null as a text", table("x.jsonl"), "x.jsonl", lines({"text": None, "label": "a"}), ("row 1", "'text'")),
    ("a JSON key twice", PAIRS, "x.jsonl", '{"prompt": "a", "prompt": "b"}\n', ("x.jsonl", "'prompt' twice")),
    ("a key twice in a prompt", PROMPTS, "x.jsonl", '{"prompt": "a", "prompt": "b"}\n', ("line 1", "twice")),
    ("half a character", PROMPTS, "x.jsonl", '{"prompt": "the \\ud800"}\n', ("line 1", "surrogate")),
    ("half a character in a pair", PAIRS, "x.jsonl", pairs(prompt="\ud800"), ("x.jsonl", "surrogate")),
    ("NaN as a prompt", PAIRS, "x.jsonl", pairs(prompt=float("nan")), ("example 1", "prompt")),
    ("an unpaired half", HALVES, "x.json", '[{"question": "[INST] a [/INST] b"}]', ("1 examples", "halves")),
    ("halves without marks", HALVES, "x.json", '[{"question": "a b"}]', ("example 1", "[/INST]")),
    (
        "an answer that is no option",
        source("ChoicesFile", path="x.json", behaviour="b"),
        "x.json",
        '[{"question": "q", "answer_matching_behavior": "(A)", "answer_not_matching_behavior": "(B)"}]',
        ("example 1", "'(A)'", "no option"),
    ),
    (
        "a persona without a statement",
        source("PersonaFile", path="x.json", behaviour="b"),
        "x.json",
        '[{"question": "q"}]',
        ("example 1", "missing", "statement"),
    ),
    ("an unknown behaviour", source("PairsFile", path="x.jsonl", only="z"), "x.jsonl", pairs(), ("'z'", "it has x")),
    ("pairs in a folder", source("PairsFile", path="decoder"), "x.jsonl", "", ("decoder", "no file")),
    ("pairs in a device", source("PairsFile", path="/dev/null"), "x.jsonl", "", ("/dev/null", "no file")),
    ("no neutral text", NEUTRAL, "n.jsonl", "\n", ("n.jsonl", "empty")),
    ("neutral texts in another column", NEUTRAL, "n.jsonl", lines({"words": "a"}), ("n.jsonl", "line 1", "text")),
    ("StereoSet as a list", STEREOSET, "x.jsonl", '{"data": [1]}', ("x.jsonl", "no examples")),
    ("a file where logs go", BASES["steer"], "logs", "x", ("logs is a file", "folder")),
]
TENSORS: dict[str, tuple[dict[str, torch.Tensor], tuple[str, ...]]] = {
    "of another width": ({SITE: torch.ones(7)}, ("[7]", "16 wide")),
    "of another layer": ({"model.layers.9": torch.ones(16)}, ("model.layers.2", "it has model.layers.9")),
    "with NaN": ({SITE: torch.full((16,), torch.nan)}, ("v.safetensors", "NaN")),
    "with infinity": ({SITE: torch.full((16,), torch.inf)}, ("v.safetensors", "infinite")),
    "of whole numbers": ({SITE: torch.ones(16, dtype=torch.int64)}, ("torch.int64", "float32")),
    "of truth values": ({SITE: torch.ones(16, dtype=torch.bool)}, ("torch.bool", "float32")),
    "of two rows": ({SITE: torch.ones(2, 16)}, ("[2, 16]", "16 wide")),
    "of nothing": ({}, ("no vector for model.layers.2",)),
    "of zeros": ({SITE: torch.zeros(16)}, ("v.safetensors", "all zeros")),
}
IMPORTED: dict[str, tuple[dict[str, torch.Tensor], tuple[str, ...], tuple[str, ...]]] = {
    "of two rows": ({"2": torch.ones(2, 16)}, ("y.gguf",), ("layer 2", "[2, 16]")),
    "with NaN": ({"2": torch.full((16,), torch.nan)}, ("y.gguf",), ("layer 2", "NaN")),
    "of whole numbers": ({"2": torch.ones(16, dtype=torch.int64)}, ("y.gguf",), ("torch.int64", "fractions")),
    "by a name": ({"foo": torch.ones(16)}, ("y.gguf",), ("'foo'", "number of a layer")),
    "of two widths": ({"1": torch.ones(16), "2": torch.ones(8)}, ("y.gguf",), ("layer 2", "8", "16")),
    "of nothing": ({}, ("y.gguf",), ("v.safetensors", "no vector")),
    "into a folder": ({"2": torch.ones(16)}, ("decoder.gguf",), ("decoder.gguf", "a folder")),
    "into a device": ({"2": torch.ones(16)}, ("/dev/null/y.gguf",), ("/dev/null/y.gguf", "another folder")),
    "for no model": ({"2": torch.ones(16)}, ("y.safetensors", "--llm=no/where"), ("no/where", "hub")),
    "of another model": ({"2": torch.ones(8)}, ("y.safetensors", "--llm=decoder"), ("width 8", "width 16")),
    "of a deeper model": ({"9": torch.ones(16)}, ("y.safetensors", "--llm=decoder"), ("block 9", "5 blocks")),
}
BESIDE = {"decoder.gguf/x": "a file in a folder"}
TOY = "checkpoints/toy/projection/best.ckpt"
CASES = [
    *(Case(f"table: {name}", arguments, expected, {**FILES, x: text}) for name, arguments, x, text, expected in TEXTS),
    *(
        Case(f"a vector {name}", VECTOR, expected, {**FILES, "v.safetensors": save(tensors)})
        for name, (tensors, expected) in TENSORS.items()
    ),
    *(
        Case(f"export {name}", ("export", "v.safetensors", *more), expected, {"v.safetensors": save(tensors), **BESIDE})
        for name, (tensors, more, expected) in IMPORTED.items()
    ),
    Case("a network as a vector", (*VECTOR[:-1], f"--{M}steering={TOY}"), (TOY, "which method"), FILES),
    Case("a network as a method", (*BASES["responses"], f"--{M}steering={TOY}"), (TOY, "fitted to"), FILES),
    Case("a network as a result", ("test", *BASES["steer"][1:], f"--ckpt_path={TOY}"), (TOY, "fitted to")),
    Case("a network to go on from", (*BASES["steer"], f"--ckpt_path={TOY}"), (TOY, "fitted to")),
    Case("a folder as a result", ("test", *BASES["steer"][1:], "--ckpt_path=decoder"), ("decoder", "no checkpoint")),
]
