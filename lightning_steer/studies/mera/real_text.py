"""Real text end to end: fine-tune a small model on SMS spam, learn its errors, certify the steering or abstain.

The rows of fine-tuning, probe training, calibration and test are disjoint. The model stays small and its task is
learned in a minute or two, so that errors remain to be repaired. Data and model are read from their folders.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_steer.cli import CLI
from lightning_steer.data.mera.module import MERADataModule
from lightning_steer.data.mera.tasks import LabelledExample, SmsSpam
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.tokens import MultipleChoice
from lightning_steer.methods import SteeringMethod
from lightning_steer.metrics.answers import label_probabilities
from lightning_steer.report.files import write_json, write_text
from lightning_steer.studies.mera import cells, controls, judging
from lightning_steer.studies.mera.families import families

METHODS = (
    *("MERA", "MERA, last layer", "Mahalanobis MERA", "Mahalanobis MERA, last layer"),
    *("contrastive, k 100", "additive logistic", "random direction"),
)


class Whole:
    """Like :class:`~.decisions.Decisions`, for answers of several tokens and variants; labels are the last dimension.

    Args:
        llm: the model.
        questions: prompts with the variants of all labels.
        label_of: the label of each variant.
    """

    def __init__(self, llm: LLM, questions: Sequence[MultipleChoice], label_of: Sequence[int]) -> None:
        self.llm, self.questions, self.label_of = llm, list(questions), torch.tensor(label_of)
        scores, h = llm.observe(self.questions)
        self.base, self.h = self._labels(scores), torch.stack([h[site] for site in llm.sites])

    def _labels(self, scores: Tensor) -> Tensor:
        return label_probabilities(scores, self.label_of).log().float()

    def scores(self, maps: Mapping[int, SteeringMethod], strengths: Sequence[float]) -> Tensor:
        """Return log-probabilities ``[S, n, labels]`` at each strength."""
        all_strengths = torch.tensor(strengths, dtype=torch.float32)
        edits = {self.llm.site(layer): (lambda h, m=m: m(h, all_strengths)) for layer, m in maps.items()}
        return self._labels(self.llm.scores(self.questions, edits, len(strengths)))


def tuned(file: Path, llm: str, data: MERADataModule, rows: int, epochs: int, out: Path) -> Path:
    """Fine-tune a model on messages that are in none of the splits; return its folder."""
    used = {example.prompt for examples in (data.train, data.calibration, data.test) for example in examples}
    unused = list({e.prompt: e for e in SmsSpam(str(file)).examples(0, 0) if e.prompt not in used}.values())
    order = torch.randperm(len(unused), generator=torch.Generator().manual_seed(data.seed)).tolist()[:rows]
    names = list(data.labels)
    lines = [{"prompt": unused[i].prompt, "completion": f" {names[unused[i].label]}"} for i in order]
    write_text(out / "fine_tuning.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    config = {
        "model": {"class_path": "LanguageModel", "init_args": {"llm": llm, "learning_rate": 2e-3}},
        "data": {
            "class_path": "TextDataModule",
            "init_args": {
                "train": str(out / "fine_tuning.jsonl"),
                "tokenizer": llm,
                "prompt": "prompt",
                "completion": "completion",
                "max_tokens": 256,
            },
        },
        "trainer": {"max_epochs": epochs, "gradient_clip_val": 1.0, "accelerator": "cpu"},
        "experiment": "mera_real",
        "run": "sms_spam",
    }
    write_json(out / "fine_tuning.json", config)
    CLI(["fit", "--config", str(out / "fine_tuning.json")])
    return Path("checkpoints/mera_real/sms_spam")


def judge(llm: LLM, data: MERADataModule) -> dict[str, Any]:
    """Certify and test every method and the controls."""
    data.check_tokens(llm)

    def split(examples: list[LabelledExample]) -> judging.AnsweredSplit:
        questions = cells.questions(data, examples)
        y = torch.tensor([example.label for example in examples])
        return judging.AnsweredSplit(examples, y, Whole(llm, questions, data.label_of))  # type: ignore[arg-type]

    train, calibration, test = (split(examples) for examples in (data.train, data.calibration, data.test))
    error = 1 - train.decisions.base.double().exp()[torch.arange(len(train.y)), train.y]
    selected = cells.probes(train.decisions.h, error)
    methods: dict[str, Any] = {}
    for family in families(train.decisions.h, error, selected):
        if family.name in METHODS:
            result = judging.certified(calibration, family.scores(calibration.decisions), family.strengths)
            logits = family.scores(test.decisions, [result["number"]])[0]
            methods[family.name] = result | judging.judged(test, logits) | {"layers": list(family.maps[0])}
    bias = controls.fitted_bias(train.decisions.base, train.y)
    methods |= cells.labels_weighed(data, train.decisions.base, bias, train.y, calibration, test)
    return {"methods": methods, "probes": cells.figures(selected), "rows": list(data.sizes), "labels": data.labels}


def say(results: Mapping[str, Any]) -> str:
    """Return the table as Markdown, with a sentence on class flips."""
    lines = ["| method | certified | bound | SPI if steered | accuracy | balanced accuracy | MCC |", f"|{'---|' * 7}"]
    for name, m in results["methods"].items():
        value = {key: estimate["value"] for key, estimate in m["metrics"].items()}
        interval = "{value:+.2f} [{low:+.2f}, {high:+.2f}]".format(**m["metrics"]["spi"])
        lines.append(
            f"| {name} | {'yes' if m['certified'] else 'no'} | {m['bound']:.3f} | {interval} | "
            f"{value['accuracy_base']:.3f} -> {value['accuracy']:.3f} | {value['balanced_accuracy_base']:.3f} -> "
            f"{value['balanced_accuracy']:.3f} | {value['mcc_base']:.2f} -> {value['mcc']:.2f} |"
        )
    flips = [name for name, m in results["methods"].items() if m["flip"]]
    lines += [
        "",
        f"In this sample a class flip: {', '.join(flips)}." if flips else "In this sample none is a class flip.",
    ]
    bias, forms = results["methods"]["label bias, fitted"], [n for n in results["methods"] if "MERA" in n]
    certified = [n for n in forms if results["methods"][n]["certified"]]
    of_bias = bias["metrics"]["spi"]["value"]
    better = [n for n in certified if results["methods"][n]["metrics"]["spi"]["value"] > of_bias]
    lines.append(
        f"More than another weighing of the labels: {', '.join(better)}."
        if better
        else "No certified form of MERA does more than another weighing of the labels."
    )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Fine-tune the model, judge every method, write results and table."""
    parser = argparse.ArgumentParser(prog="python -m lightning_steer.studies.mera.real_text", description=__doc__)
    add = parser.add_argument
    add("--file", type=Path, required=True, help="the SMS Spam Collection, label<TAB>text")
    add("--llm", required=True, help="folder or hub name of a small model")
    add("--fine-tune", type=int, default=1500, help="messages to fine-tune on")
    add("--epochs", type=int, default=2, help="of the fine-tuning")
    add("--train", type=int, default=2000, help="messages to learn the errors from")
    add("--test", type=int, default=500, help="held-out messages")
    add("--seed", type=int, default=0, help="draws the splits")
    add("--out", type=Path, default=Path("logs/mera_real/sms_spam"), help="where numbers and table go")
    options = parser.parse_args(argv)
    try:
        data = MERADataModule(SmsSpam(str(options.file)), options.train, 250, options.test, seed=options.seed)
        data.setup()
        folder = tuned(options.file, options.llm, data, options.fine_tune, options.epochs, options.out)
    except (ValueError, OSError) as error:
        print(f"lightning_steer: {error}", file=sys.stderr)
        return 2
    llm = cells.load(str(folder), chat=False)
    with torch.no_grad():
        results = judge(llm, data)
    write_json(options.out / "results.json", results)
    write_text(options.out / "table.md", say(results) + "\n")
    print(say(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
