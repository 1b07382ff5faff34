"""Files that cannot be used, by the command that reads them; and wrong arguments of export, check and report."""

import json

from bad_commands import BASES, B, D, M, T
from bad_input import Case

PAIR = {"prompt": "the cat", "positive": "is good", "negative": "is bad"}
CONTENT: dict[str, tuple[str | bytes, str]] = {
    "binary": (b"\x80\x81\x82\xff", "not utf-8"),
    "a NUL byte": (b'{"a": 1}\0\n', "binary"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "not utf-8"),
    "Latin-1": ("caf\xe9 noir".encode("latin-1"), "not utf-8"),
    "a picture": (b"\x89PNG\r\n\x1a\n\0\0\0", "not utf-8"),
    "cut off": ('{"prompt": "a', "expected"),
    "a number": ("7\n", "expected"),
    "a word": ('"prompt"\n', "expected"),
    "null": ("null\n", "expected"),
    "nested lists": ("[" * 5000, "expected"),
}
READERS = {
    "prompts": ((*BASES["responses"], "--model.init_args.steering=null", f"--{D}file=x.jsonl"), CONTENT),
    "cache": ((*BASES["cache"], f"--{D}file=x.jsonl"), CONTENT),
}
PAIRS = (*BASES["behaviour"], f"--{D}source=PairsFile", f"--{D}source.init_args.path=x.jsonl")
LABELLED = (
    *(*BASES["mera"], f"--{D}cache=null", f"--{D}source=LabelledFile", f"--{D}source.init_args.file=x.jsonl"),
    *(f"--{D}source.init_args.template={{text}}", f"--{D}source.init_args.labels={{a: [a], b: [b]}}"),
)
STEREOSET = (
    *("fit", "--config", "configs/steer_stereoset_notebook.yaml", *BASES["stereoset"][3:]),
    f"--{D}source=x.jsonl",
    f"--{B}layers=1",
    f"--{B}dtype=float32",
)


def lines(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def pairs(**change: object) -> str:
    return lines({**PAIR, **change})


ROWS: list[tuple[str, tuple[str, ...], str, tuple[str, ...]]] = [
    ("empty", PAIRS, "", ("x.jsonl", "empty")),
    ("blank", PAIRS, "\n \n", ("x.jsonl", "empty")),
    # a prompt is optional, so these are refused as every single pair is
    ("a single pair without prompt", PAIRS, lines({"positive": "a", "negative": "b"}), ("1 examples", "three prompts")),
    ("a single pair, empty prompt", PAIRS, pairs(prompt=" "), ("1 examples", "three prompts")),
    ("no negative", PAIRS, lines({"prompt": "a", "positive": "b"}), ("negative", "missing")),
    ("unknown column", PAIRS, pairs(colour="red"), ("colour", "expected the columns positive, negative")),
    ("number as positive", PAIRS, pairs(positive=3), ("positive", "no text")),
    ("null as negative", PAIRS, pairs(negative=None), ("negative", "no text")),
    ("list as prompt", PAIRS, pairs(prompt=["a"]), ("prompt", "no text")),
    ("number as behaviour", PAIRS, pairs(behaviour=3), ("behaviour", "no text")),
    ("equal continuations", PAIRS, pairs(negative="is good"), ("is good", "same continuation")),
    ("two behaviours", PAIRS, pairs(behaviour="x") + pairs(behaviour="y"), ("x, y", "only")),
    ("the same pair twice", PAIRS, pairs() + pairs(), ("repeats",)),
    ("the same id twice", PAIRS, pairs(id="q") + pairs(id="q", prompt="z"), ("q", "twice")),
    ("two prompts", PAIRS, pairs() + pairs(prompt="the dog"), ("2 different prompts", "three")),
    ("a list of words", PAIRS, '["a", "b", "c"]', ("object", "'a'")),
    ("a prompt that is no text", READERS["prompts"][0], lines({"prompt": 3}), ("3", "text")),
    ("an empty prompt", READERS["prompts"][0], lines({"prompt": ""}), ("prompt 1", "empty")),
    ("ids that occur twice", READERS["prompts"][0], lines({"prompt": "a", "id": 1}) * 2, ("id 1", "twice")),
    ("no prompt column", READERS["prompts"][0], lines({"text": "a"}), ("line 1", "prompt")),
    ("no prompt at all", READERS["prompts"][0], "\n", ("x.jsonl", "no prompt")),
    ("a text that is no text", READERS["cache"][0], lines({"text": None}), ("None", "text")),
    ("no text column", READERS["cache"][0], lines({"prompt": "a"}), ("line 1", "text")),
    ("no text at all", READERS["cache"][0], "", ("0", "at least 1 text")),
    ("no label column", LABELLED, lines({"text": "a"}), ("label",)),
    ("an unknown label", LABELLED, lines({"text": "a", "label": "c"}), ("'c'", "label")),
    ("one label only", LABELLED, lines({"text": "a", "label": "a"}, {"text": "c", "label": "a"}), ("'b'", "label")),
    ("too few rows", LABELLED, lines({"text": "x", "label": "a"}, {"text": "y", "label": "b"}), ("rows", "2")),
    ("no row", LABELLED, "", ("x.jsonl", "no rows")),
    ("no object", LABELLED, "[1]\n", ("x.jsonl", "object")),
    ("an empty object", STEREOSET, "{}", ("x.jsonl", "no examples")),
    ("an empty list", STEREOSET, "[]", ("x.jsonl", "no examples")),
    ("half an object", STEREOSET, "{", ("x.jsonl", "not JSON")),
    ("binary examples", STEREOSET, "\0", ("x.jsonl", "binary")),
    ("examples without sentences", STEREOSET, '{"data": {"intersentence": [{"id": "e1"}]}}', ("e1",)),
]
YAML: dict[str, tuple[str | bytes, tuple[str, ...]]] = {
    "binary": (b"\x80\x81", ("x.yaml", "not utf-8")),
    "a NUL byte": (b"seed_everything: 1\0", ("x.yaml", "binary")),
    "a tab": ("model:\n\tinit_args: 1\n", ("x.yaml",)),
    "cut off": ("model: {init_args: [", ("x.yaml",)),
    "a list": ("- 1\n- 2\n", ("x.yaml",)),
    "a word": ("model\n", ("x.yaml",)),
    "a wrong key": ("modle: ToyClassifier\n", ("modle",)),
    "a wrong type": ("trainer: {max_epochs: ten}\n", ("ten", "int")),
    "NaN": ("model: {init_args: {learning_rate: .nan}}\n", ("nan", "finite")),
    "a wild seed": ("seed_everything: 99999999999\n", ("99999999999", "4294967295")),
    "a tag of Python": (
        "model: !!python/object/apply:os.system ['touch attacked']\n",
        ("python/object/apply", "constructor"),
    ),
    "an anchor without an end": ("model: *nobody\n", ("x.yaml",)),
}
VECTORS: dict[str, tuple[str | bytes, tuple[str, ...]]] = {
    "x.safetensors": (b"\x08\0\0\0\0\0\0\0{}      ", ("x.safetensors",)),
    "short.safetensors": (b"\x08\0", ("short.safetensors",)),
    "huge.safetensors": (b"\xff" * 16, ("huge.safetensors",)),
    "empty.safetensors": (b"", ("empty.safetensors",)),
    "text.safetensors": ("hello", ("text.safetensors",)),
    "x.gguf": (b"GGUF", ("x.gguf",)),
    "version.gguf": (b"GGUF\x63\0\0\0" + b"\0" * 16, ("version.gguf", "99")),
    "counts.gguf": (b"GGUF\x03\0\0\0" + b"\xff" * 16, ("counts.gguf",)),
    "x.pt": (b"PK\x03\x04", ("x.pt",)),
    "pickle.pt": (b"\x80\x04N.", ("pickle.pt",)),
    "x.txt": ("a vector", ("x.txt",)),
}
EXPORT: list[tuple[tuple[str, ...], tuple[str, ...]]] = [
    (("nowhere", "y.gguf"), ("nowhere",)),
    (("nowhere.safetensors", "y.gguf"), ("nowhere.safetensors",)),
    (("decoder", "y.gguf"), ("decoder", "fit.yaml")),
    (("checkpoints", "y.gguf"), ("checkpoints", "fit.yaml")),
    (("decoder", "y.docx"), ("y.docx", ".safetensors")),
    (("decoder", "y"), ("y", "--format")),
    (("decoder", "y.gguf", "--format", "onnx"), ("onnx", "gguf")),
    (("decoder", "y.gguf", "--strength", "strong"), ("strong", "float")),
    (("decoder", "y.gguf", "--strength", "nan"), ("nan", "finite")),
    (("decoder", "y.gguf", "--strength", "inf"), ("inf", "finite")),
    (("decoder", "y.gguf", "--strength=-inf"), ("inf", "finite")),
    (("decoder",), ("target",)),
    ((), ("source",)),
    (("decoder", "y.gguf", "--loud"), ("--loud",)),
    (("decoder", "y.gguf", "z.gguf"), ("z.gguf",)),
]
CHECK: list[tuple[tuple[str, ...], tuple[str, ...]]] = [
    ((), ("--llm",)),
    (("--llm", ""), ("''",)),
    (("--llm", "nowhere"), ("nowhere",)),
    (("--llm", "some/model"), ("some/model",)),
    (("--llm", "configs"), ("configs", "config.json")),
    (("--llm", "decoder", "--layer", "9"), ("9", "between 0 and")),
    (("--llm", "decoder", "--layer", "-9"), ("-9", "between 0 and")),
    (("--llm", "decoder", "--layer", "top"), ("top", "int")),
    (("--llm", "decoder", "--dtype", "float31"), ("float31", "bfloat16")),
    (("--llm", "decoder", "--dtype", "int8"), ("int8", "bfloat16")),
    (("--llm", "decoder", "--device", "abacus"), ("abacus", "CPU")),
    (("--llm", "decoder", "--device", "cuda:99"), ("cuda:99", "CPU")),
    (("--llm", "decoder", "--revision", "v9"), ("v9", "local folder")),
    (("--llm", "decoder", "--quick"), ("--quick",)),
    (("decoder",), ("--llm",)),
]
REPORT = {
    "half": ("{", ("report.json", "not a report")),
    "list": ("[1]", ("report.json", "not a report")),
    "empty object": ("{}", ("report.json", "lacks backbone")),
    "nothing": ("", ("report.json", "not a report")),
    "binary": (b"\x80\x81", ("report.json", "not a report")),
    "nested": ("[" * 5000, ("report.json", "not a report")),
    "word": ('"x"', ("report.json", "not a report")),
}
TOP: list[tuple[tuple[str, ...], tuple[str, ...]]] = [
    (("fti",), ("fti", "fit")),
    (("FIT",), ("FIT", "fit")),
    (("fit",), ("fit.data", "fit.model")),
    (("test",), ("test.data", "test.model")),
    (("fit", "--config"), ("config",)),
    (("fit", "--config", "configs"), ("configs",)),
    (("fit", "--config", "configs/toy.yml"), ("configs/toy.yml",)),
    (("fit", "--config", ""), ("config",)),
    (("fit", "--config", "configs/steer_toy.yaml"), ("method", "--config configs/methods/")),
    (("fit", "--config", "configs/steer_mera.yaml"), ("method", "--config configs/methods/")),
    (("fit", "--config", "configs/methods/leace.yaml"), ("method",)),
    (("fit", "configs/toy.yaml"), ("configs/toy.yaml",)),
    (("fit", "--konfig", "configs/toy.yaml"), ("konfig", "config")),
    (("test", *BASES["steer"][1:]), ("no checkpoint", "fit")),
    (("validate", *BASES["steer"][1:]), ("no checkpoint", "fit")),
    (("predict", *BASES["steer"][1:]), ("no checkpoint", "fit")),
    (("test", *BASES["steer"][1:], "--ckpt_path=x.ckpt"), ("x.ckpt",)),
    (("test", *BASES["steer"][1:], "--ckpt_path=checkpoints"), ("checkpoints",)),
    (("test", *BASES["toy"][1:], "--run=projection"), ("fitted to something else (settings", "'attributes': 6", "fit")),
    (("fit", *BASES["cache"][1:]), ("fit", "predict")),
    (("fit", *BASES["responses"][1:]), ("fit", "predict")),
    (("test", *BASES["responses"][1:]), ("predict",)),
    (("predict", *BASES["sae"][1:]), ("SparseCoder", "fit")),
    (("--seed", "1"), ("--seed", "fit")),
]
MIXED: list[tuple[str, str, tuple[str, ...]]] = [
    ("steer", "--data=ToyLabelDataModule", ("ToyLabelDataModule",)),
    ("behaviour", "--data=PocketStereoSetDataModule", ("BehaviourEffect", "stereotypes")),
    ("stereoset", "--data=MERADataModule", ("source",)),
    ("pocket", "--data=ToyLabelDataModule", ("ToyLabelDataModule",)),
    ("cache", "--data=PromptsDataModule", ("PromptsDataModule",)),
    ("responses", "--data=TextDataModule", ("train",)),
    ("probe", f"--{M}evaluation=AttributeEffect", ("AttributeEffect",)),
    ("mera", f"--{M}evaluation=BehaviourEffect", ("BehaviourEffect",)),
    ("steer", f"--{M}evaluation=StereoSetEffect", ("StereoSetEffect",)),
    ("steer", f"--{M}method=MERA", ("MERA", "between 0 and 1", "1.5")),
    ("stereoset", f"--{T}strategy=fsdp", ("FSDP",)),
]


def _config(name: str, content: str | bytes, expected: tuple[str, ...]) -> Case:
    arguments = ("fit", "--config", "configs/toy.yaml", "--config", "x.yaml")
    return Case(f"configuration: {name}", arguments, expected, {"x.yaml": content})


def _reported(name: str, content: str | bytes, expected: tuple[str, ...]) -> Case:
    return Case(f"report: {name}", ("report", "logs"), expected, {"logs/a/b/report.json": content})


CASES = [
    *(
        Case(f"{reader}: {name}", arguments, ("x.jsonl", words), {"x.jsonl": content, "prompts.txt": "a"})
        for reader, (arguments, contents) in READERS.items()
        for name, (content, words) in contents.items()
    ),
    *(
        Case(f"pairs: {name}", PAIRS, ("x.jsonl", words.replace("expected", "")), {"x.jsonl": content})
        for name, (content, words) in CONTENT.items()
    ),
    *(
        Case(f"rows: {name}", arguments, expected, {"x.jsonl": content, "prompts.txt": "a"})
        for name, arguments, content, expected in ROWS
    ),
    *(_config(name, *case) for name, case in YAML.items()),
    *(
        Case(f"export: {name}", ("export", name, "y.gguf"), expected, {name: content})
        for name, (content, expected) in VECTORS.items()
    ),
    *(Case(f"export {' '.join(more)}", ("export", *more), expected) for more, expected in EXPORT),
    *(Case(f"check {' '.join(more)}", ("check", *more), expected) for more, expected in CHECK),
    *(_reported(name, *case) for name, case in REPORT.items()),
    Case("report of no folder", ("report", "nowhere"), ("nowhere", "folder")),
    Case("report of an empty folder", ("report", "checkpoints"), ("report.json", "checkpoints")),
    Case("report of a file", ("report", "prompts.txt"), ("prompts.txt", "folder"), {"prompts.txt": "a"}),
    Case("report of nothing", ("report",), ("folder",)),
    Case("report with a wrong option", ("report", "logs", "--pdf"), ("--pdf",)),
    *(Case(f"command {' '.join(more[:4])} {number}", more, expected) for number, (more, expected) in enumerate(TOP)),
    *(
        Case(f"mixed {base} {more}", (*BASES[base], more), expected, {"prompts.txt": "a"})
        for base, more, expected in MIXED
    ),
]
