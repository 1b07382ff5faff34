"""What looks wrong and is accepted on purpose: each with the sentence of the documentation that says so."""

from bad_commands import BASES, FILES, D, M, T
from bad_input import Case

CLI = "lightning_steer/cli.py"
JSON_LINES = b'\xef\xbb\xbf{"prompt": "the cat\xe2\x80\xa8the dog"}\n'
CASES = [
    Case(
        "a folder that is called as a list is written",
        (*BASES["steer"], f"--{T}default_root_dir=[]"),
        ("Fitted steer_toy/mean_difference",),
        FILES,
        (CLI, "any text is a folder's name"),
        0,
    ),
    Case(
        "a Cyrillic letter in a run's name",
        (*BASES["steer"], "--run=\u0440un"),
        ("Fitted steer_toy/\u0440un",),
        FILES,
        (CLI, "letters of any alphabet are letters"),
        0,
    ),
    Case(
        "no for a run's name",
        (*BASES["steer"], "--config=x.yaml"),
        ("Fitted steer_toy/no",),
        {"x.yaml": "run: no\n"},
        ("lightning_steer/config_files.py", "yes, no, on and off are words"),
        0,
    ),
    Case(
        "digits that begin with 0",
        (*BASES["steer"], "--config=x.yaml", f"--{T}max_epochs=01"),
        ("Fitted steer_toy/010",),
        {"x.yaml": "run: 010\n"},
        ("lightning_steer/config_files.py", "010 is 10 and not 8"),
        0,
    ),
    Case(
        "an option given twice",
        (*BASES["steer"], "--run=first", "--run=second"),
        ("Fitted steer_toy/second",),
        FILES,
        (CLI, "Of an option that is given twice the last counts"),
        0,
    ),
    Case(
        "LoReFT at its default rank on a network of width 16",
        (*BASES["steer"], f"--{M}method=LoReFT"),
        ("Fitted steer_toy/mean_difference",),
        FILES,
        ("lightning_steer/methods/loreft.py", "dimensions of the subspace, at most the width of the stream"),
        0,
    ),
    Case(
        "a label that the tokenizer does not know",
        ("check", "--llm=decoder", "--labels", "xyzzy", "plugh"),
        ("FAIL  The labels' tokens differ", "xyzzy", "1 of "),
        {},
        (
            "lightning_steer/check/__main__.py",
            "whose tokens must differ; the law also fails for a label that the tokenizer",
        ),
        1,
    ),
    Case(
        "a byte-order mark, and a line separator inside a string of JSON lines",
        (*BASES["unsteered"], f"--{D}file=x.jsonl", f"--{M}max_new_tokens=2"),
        ("1 responses",),
        {"x.jsonl": JSON_LINES},
        ("lightning_steer/text_files.py", "a byte-order mark is dropped"),
        0,
    ),
]
