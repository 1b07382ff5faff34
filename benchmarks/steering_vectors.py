"""Against steering-vectors 0.12.2, in an environment of its own, on the same small random Llama and the same texts.

1. Training a vector on 200 pairs, read at the last token two thirds up; the peer with its default batch size, and with
   the best of a few. Bound: 4 against the default.
2. 9 strengths x 100 prompts x 2 choices. Bound: 8.

Vectors and scores must be equal to 1e-4. Both sides are processes of their own that work by turns; loading a model is
not counted. The environment is made once, below ``benchmarks/.peers``, by pip with the torch that the project is
tested with; the peer needs transformers below 5.

    OMP_NUM_THREADS=2 python benchmarks/steering_vectors.py      # three minutes, and a few to install at first
"""

import json
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import torch
from side_by_side import by_turns, language_model, say, seconds, sentence, size

from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.tokens import MultipleChoice
from lightning_steer.methods import MeanDifference
from lightning_steer.records import Activations

HERE = Path(__file__).parent
PEER = "steering-vectors==0.12.2"
LLAMA = {"hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 8, "intermediate_size": 688}
STRENGTHS = [-2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0]
LAYER = 3


def peer() -> Path:
    """The Python of the peer's environment, made if need be."""
    folder = HERE / ".peers" / PEER
    python = folder / "bin/python"
    if not (folder / "ready").is_file():
        print(f"Installing {PEER} into {folder} ...", file=sys.stderr)
        venv.create(folder, clear=True, with_pip=True)
        (HERE / ".peers/.gitignore").write_text("*\n")
        locked = (HERE.parent / "requirements.lock").read_text()
        (folder / "constraints").write_text("\n".join(re.findall(r"^(?:torch|numpy)==.*", locked, re.MULTILINE)))
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, PEER, "torch", "numpy", "--constraint", str(folder / "constraints")], check=True)
        (folder / "ready").touch()
    return python


class Worker:
    """The peer at work."""

    def __init__(self, folder: Path) -> None:
        command = [str(peer()), "-E", str(HERE / "peers/worker.py"), str(folder)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.folder = folder
        assert self._answer() == "ready", "the peer did not start"

    def _answer(self) -> str:
        return self.process.stdout.readline().strip()  # type: ignore[union-attr]

    def __call__(self, command: str) -> float:
        print(command, file=self.process.stdin, flush=True)
        return float(self._answer())

    def results(self) -> dict:
        """What it has found, at its end."""
        print("quit", file=self.process.stdin, flush=True)
        self.process.wait(60)
        return json.loads((self.folder / "results.json").read_text())


def main() -> None:
    """Measure and print."""
    made = language_model(LAYER, **LLAMA, max_position_embeddings=512)
    questions = [MultipleChoice(sentence(i, 20, 40), (f" w{i}", f" w{i + 300}")) for i in range(300)]
    fitted, held_out = questions[:200], questions[200:]
    task = {
        "layer": LAYER,
        "strengths": STRENGTHS,
        "pairs": [[q.prompt + q.choices[0], q.prompt + q.choices[1]] for q in fitted],
        "asked": [[q.prompt, list(q.choices)] for q in held_out],
    }
    scores: dict[str, torch.Tensor] = {}
    with tempfile.TemporaryDirectory() as name, torch.inference_mode():
        folder = Path(name)
        made.model.save_pretrained(folder)
        made.tokenizer.save_pretrained(folder)
        (folder / "task.json").write_text(json.dumps(task))
        llm = LLM(name, LAYER)
        llm.load()
        site, method = llm.sites[0], MeanDifference(llm.width(""))

        def train() -> None:
            texts = [text for pair in task["pairs"] for text in pair]
            h = llm.activations([MultipleChoice(text) for text in texts])[site]
            error = torch.tensor([0.0, 1.0]).repeat(len(fitted))
            method.fit(Activations(h, error, torch.zeros(len(h), 1, dtype=torch.int64), paired=True))

        def sweep() -> None:
            strength = torch.tensor(STRENGTHS).view(-1, 1, 1, 1)
            scores["scores"] = llm.scores(held_out, {site: lambda h: h + strength * method.vector}, len(STRENGTHS))

        worker = Worker(folder)
        sizes = {batch: min(worker(f"train {batch}") for _ in range(2)) for batch in (8, 32, 100)}
        best = min(sizes, key=sizes.__getitem__)
        small = by_turns(lambda: worker(f"train {best}"), lambda: seconds(train), 7, "training, batches")
        training = by_turns(lambda: worker("train"), lambda: seconds(train), 7, "training")
        sweeping = by_turns(lambda: worker("sweep"), lambda: seconds(sweep), 5, "sweep")
        peer = worker.results()
    of_vector = float((method.vector - torch.tensor(peer["vector"])).abs().max() / method.vector.abs().max())
    of_scores = float((scores["scores"] - torch.tensor(peer["scores"])).abs().max())
    assert max(of_vector, of_scores) < 1e-4 < float(scores["scores"].std(0).max()), (of_vector, of_scores)
    what = f"of {PEER} over ours, {size(llm)}"
    say("train a vector", training, ">= 4", f"200 pairs {what}, vectors equal to {of_vector:.0e}", difference=of_vector)
    say(
        "train a vector, batched",
        small,
        ">= 1",
        f"200 pairs {what}, the peer with batch_size {best}, the best of {list(sizes)}",
    )
    told = f"9 strengths x 100 prompts x 2 choices {what}, scores equal to {of_scores:.0e}"
    say("sweep of a vector", sweeping, ">= 8", told, difference=of_scores)


if __name__ == "__main__":
    main()
