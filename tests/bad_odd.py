"""Bad input of odd kinds: YAML's traps, look-alikes, absurd counts, lists for scalars, files for folders."""

from bad_commands import BASES, FILES, B, D, M, T
from bad_input import Case

MANY = "1000000000000"
YAML: dict[str, tuple[str, tuple[str, ...]]] = {
    "a key twice": ("seed_everything: 1\nseed_everything: 2\n", ("x.yaml", "seed_everything", "twice")),
    "a nested key twice": ("trainer: {max_epochs: 1, max_epochs: 2}\n", ("max_epochs", "twice")),
    "two documents": ("--- {}\n--- {}\n", ("x.yaml", "single document")),
    "a list as a key": ("? [1, 2]\n: 3\n", ("unhashable",)),
    "a number as a key": ("1: 2\n", ("string", "1")),
    "a bomb of aliases": (
        "a: &a [x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b]\nmodel: *c\n",
        ("model",),
    ),
    "an alias for an option": ("a: &a {b: 1}\nmodel: *a\n", ("'b'",)),
    "a trainer that is a number": ("trainer: 3\n", ("trainer", "3")),
    "a trainer that is a list": ("trainer: [3]\n", ("trainer", "3")),
    "a model that is a list": ("model: []\n", ("model",)),
    "data that are a number": ("data: 3\n", ("data",)),
    "callbacks that are a number": ("trainer: {callbacks: 7}\n", ("callbacks",)),
    "null for a name": ("run: null\n", ("toy/None", "name")),
    "a list for a name": ("run: [a]\n", ("run", "str", "['a']")),
    "a number for a name": ("run: 1e3\n", ("quotes", "run", "str", "1000.0")),
    "no number for a name": ("run: .nan\n", ("quotes", "run", "str", "nan")),
    "minutes and seconds, 90 in YAML 1.1": ("seed_everything: 1:30\n", ("int", "seed_everything", "1:30")),
    "digits in groups": ("seed_everything: 1_000\n", ("int", "seed_everything", "1_000")),
    "a fraction of minutes": (f"{M}learning_rate: 1:30.5\n", ("float", "learning_rate", "1:30.5")),
    "a word for a truth value": ("overwrite: off\n", ("bool", "overwrite", "off")),
    "a dotted key beside a nested one": (
        "trainer.max_epochs: 1\ntrainer: {max_epochs: 2}\n",
        ("twice", "trainer.max_epochs", "x.yaml"),
    ),
    "a nested key before a dotted one": (
        "trainer: {max_epochs: 2}\ntrainer.max_epochs: 1\n",
        ("twice", "trainer.max_epochs", "x.yaml"),
    ),
    "a dotted key that holds another": (
        "model.init_args: {learning_rate: 1}\nmodel.init_args.learning_rate: 2\n",
        ("twice", "model.init_args.learning_rate", "x.yaml"),
    ),
    "a key that is a number": ("data: {init_args: {1: 2}}\n", ("quotes", "key 1", "string", "x.yaml")),
    "nothing": ("", ("x.yaml", "no configuration")),
    "only a comment": ("# seed_everything: 1\n", ("x.yaml", "no configuration")),
}
OPTIONS: list[tuple[str, str, str, tuple[str, ...]]] = [
    ("steer", M + "strengths", "[1, 1]", ("1 occurs twice", "different")),
    ("steer", M + "strengths", "[0.5, 1, 0.5]", ("0.5 occurs twice", "different")),
    ("responses", M + "strengths", "[2.0, 2]", ("2 occurs twice", "different")),
    ("steer", D + "pairs", "1e30", ("1e+30", "int")),
    ("steer", D + "pairs", MANY, ("pairs", MANY)),
    ("steer", D + "pairs", "1000000000", ("pairs 1000000000", "memory")),
    ("steer", D + "test_rows", "1000000000", ("test_rows 1000000000", "memory")),
    ("steer", D + "select_most", MANY, ("select_most", MANY)),
    ("steer", M + "resamples", "2000000", ("resamples", "2000000", "at most 1000000")),
    ("steer", M + "random_draws", "2000000", ("random_draws", "2000000", "at most 1000000")),
    ("toy", D + "batch_size", "1000000000", ("batch_size 1000000000", "memory")),
    ("toy", D + "batch_size", "-" + MANY, ("batch_size", "-" + MANY)),
    ("toy", D + "steps_per_epoch", MANY, ("steps_per_epoch", MANY)),
    ("toy", D + "values", "1000000000", ("1000000000 values", "memory")),
    ("toy", M + "widths", "[1000000, 1000000]", ("widths [1000000, 1000000]", "memory")),
    ("toy", M + "widths", "[2000000]", ("widths", "2000000", "at most")),
    ("toy", T + "max_epochs", MANY, ("max_epochs", MANY)),
    ("pocket", M + "architecture.hidden_size", "1000000", ("1000000", "memory")),
    ("pocket", D + "val_documents", "1000000000", ("val_documents 1000000000", "memory")),
    ("pocket", D + "tokens_per_step", "1000000000", ("tokens_per_step 1000000000", "memory")),
    ("behaviour", D + "source.init_args.per_topic", "1000000000", ("per_topic 1000000000", "memory")),
    ("mera", D + "train", "1000000000", ("rows", "memory")),
    ("responses", M + "samples", "2000000", ("samples", "at most 1000000")),
    ("probe", M + "penalties", "[0.1, -1]", ("penalties", "-1")),
    ("toy", M + "learning_rate", "1e400", ("learning_rate", "inf", "finite")),
    ("toy", M + "learning_rate", "-0.0", ("learning_rate", "-0.0", "above 0")),
    ("toy", M + "learning_rate", "1e-400", ("learning_rate", "0.0", "above 0")),
    ("toy", M + "learning_rate", "true", ("learning_rate", "float", "True")),
    ("toy", M + "learning_rate", "１/２", ("learning_rate", "１/２")),
    ("toy", D + "batch_size", "true", ("batch_size", "int", "True")),
    ("toy", D + "batch_size", "[8]", ("batch_size", "int", "[8]")),
    ("toy", D + "batch_size", "{a: 8}", ("batch_size", "int")),
    ("toy", D + "batch_size", "", ("batch_size", "int")),
    ("toy", D + "batch_size", "8,5", ("batch_size", "8,5")),
    ("toy", D + "batch_size", "⑧", ("batch_size", "⑧")),
    ("toy", T + "max_epochs", "[]", ("max_epochs", "int or null", "[]")),
    ("toy", T + "max_epochs", "{}", ("max_epochs", "int or null", "{}")),
    ("toy", M + "betas", "[0.9,0.9,0.9]", ("betas", "2 elements")),
    ("toy", M + "betas", "0.9", ("betas", "0.9")),
    ("toy", "checkpoint.filenam", "x", ("checkpoint.filenam", "did you mean --checkpoint.filename")),
    ("toy", "checkpoint.filename", "../../x", ("checkpoint.filename", "../../x")),
    ("toy", "checkpoint.filename", "", ("checkpoint.filename", "''")),
    ("toy", "checkpoint.filename", "{epoch}", ("checkpoint.filename", "{epoch}")),
    ("toy", "checkpoint.filename", "a/b", ("checkpoint.filename", "a/b")),
    ("toy", "checkpoint.dirpath", "/dev/null", ("/dev/null", "is a file", "folder")),
    ("toy", "checkpoint.dirpath", "prompts.txt", ("prompts.txt", "is a file", "folder")),
    ("toy", "checkpoint.dirpath", "prompts.txt/x", ("prompts.txt", "is a file", "folder")),
    ("toy", T + "default_root_dir", "prompts.txt", ("prompts.txt", "is a file", "folder")),
    ("toy", "config", "/dev/null", ("/dev/null",)),
    ("toy", "config", "/dev/zero", ("/dev/zero",)),
    ("toy", "run", "ru\u202en", ("run's name",)),
    ("toy", "run", "a\u00a0b", ("run's name",)),
    ("toy", "data", "ToyDataModule", ("ToyLabelDataModule", "ToyDataModule")),
    ("toy", "model", "ТoyClassifier", ("ТoyClassifier", "known are")),
    ("steer", M + "method", "mean_difference", ("mean_difference", "known are")),
    ("steer", M + "method", "[MeanDifference]", ("method",)),
    ("steer", M + "method", "{class_path: LoReFT, init_args: {rank: 17}}", ("17", "width 16")),
    ("steer", B + "site", "layers.-1", ("layers.-1", "does not exist")),
    ("steer", B + "checkpoint", "decoder", ("decoder", "no toy network")),
    ("steer", B + "checkpoint", "/dev/null", ("/dev/null", "no toy network")),
    ("behaviour", B + "llm", "/dev/null", ("/dev/null", "folder")),
    ("behaviour", B + "llm", "decoder\u200b", ("decoder", "Repo id")),
]
VALUES: list[tuple[str, str, tuple[str, ...]]] = [
    ("trainer", "{max_epochs: 1, max_epochs: 2}", ("twice", "max_epochs")),
    ("data", '{"class_path": "ToyLabelDataModule", "init_args": {"seed": 1, "seed": 2}}', ("twice", "seed")),
    ("data", "x.yaml", ("twice", "seed")),
    ("seed_everything", "1:30", ("int", "1:30")),
    (T + "max_epochs", "1_0", ("int", "1_0")),
    (M + "learning_rate", "1:30.5", ("float", "1:30.5")),
]
"""Options of the toy network that YAML would silently read as something else."""
QUIET = (*BASES["steer"], f"--{T}enable_progress_bar=false")
FULL: list[tuple[tuple[str, ...], int, tuple[str, ...]]] = [
    (QUIET, 1500, ("logs/steer_toy/mean_difference/fit.yaml",)),
    ((*QUIET, f"--{T}max_epochs=150"), 9000, ("steer_toy/mean_difference/best.ckpt",)),
    ((*QUIET, f"--{T}max_epochs=300"), 20000, ("below logs/steer_toy/mean_difference or checkpoints/steer_toy",)),
    (BASES["unsteered"], 600, ("logs/responses/base/predict.yaml",)),
    (BASES["cache"], 1000, ("logs/cache/pocket/predict.yaml",)),
]
"""Commands that work, and the bytes at which the disk takes no more of a file: its record, its result, its log."""
CASES = [
    *(
        Case(f"full disk: {number}", arguments, (*expected, "File too large", "make room"), FILES, room=room)
        for number, (arguments, room, expected) in enumerate(FULL)
    ),
    *(
        Case(f"odd YAML: {name}", ("fit", "--config=configs/toy.yaml", "--config=x.yaml"), expected, {"x.yaml": text})
        for name, (text, expected) in YAML.items()
    ),
    *(
        Case(f"odd: {base} {option}={value}", (*BASES[base], f"--{option}={value}"), expected, FILES)
        for base, option, value, expected in OPTIONS
    ),
    *(
        Case(
            f"read otherwise: {option}={value}",
            (*BASES["toy"], f"--{option}={value}"),
            expected,
            {"x.yaml": "class_path: ToyLabelDataModule\ninit_args: {seed: 1, seed: 2}\n"},
        )
        for option, value, expected in VALUES
    ),
    Case("check with a label twice", ("check", "--llm=decoder", "--labels", "good", "good"), ("good", "each once")),
    Case("check with an empty label", ("check", "--llm=decoder", "--labels", ""), ("''", "words")),
    Case("half of an option of export", ("export", "decoder", "y.gguf", "--stren", "1"), ("--stren",)),
]
