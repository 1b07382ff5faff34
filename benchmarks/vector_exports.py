"""Exported vectors in the tools that they are meant for: the same steered logits?

A random Llama of 4 blocks, a vector at two of them, exported to each form. repeng, steering-vectors and
lm-evaluation-harness steer the model with it, the gguf package reads it back, and the greatest difference from our own
steered logits is printed. Bound: 1e-5, where steering moves the logits by more than 0.1.

The tools are installed once by pip into an environment of their own below ``benchmarks/.peers``, on top of the
project's own packages. repeng 0.4.0 names a type that numpy 2 has dropped; it is given back for the import.

    python benchmarks/vector_exports.py      # a minute, and two to install at first
"""

import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TOOLS = ["gguf==0.19.0", "repeng==0.4.0", "steering-vectors==0.12.2", "lm_eval==0.4.13"]
NEEDED = ["accelerate", "evaluate", "jsonlines", "more_itertools", "peft", "pytablewriter", "rouge-score", "sacrebleu"]
NEEDED += ["sqlitedict", "tqdm-multiprocess", "word2number", "zstandard"]
BOUND = 1e-5
LAYERS = [1, 2]
IDS = [[5, 6, 7, 8, 9, 10, 11, 12, 5, 13]]  # one row: repeng 0.4.0 fails on a batch without positions for each row


def environment() -> Path:
    """The Python of the tools' environment, made if need be."""
    folder = HERE / ".peers/vector-exports"
    python = folder / "bin/python"
    if not (folder / "ready").is_file():
        print(f"Installing {', '.join(TOOLS)} into {folder} ...", file=sys.stderr)
        venv.create(folder, clear=True, with_pip=True)
        (HERE / ".peers/.gitignore").write_text("*\n")
        within = next(folder.glob("lib/python*/site-packages"))
        (within / "project.pth").write_text(f"{sysconfig.get_paths()['purelib']}\n{HERE.parent}\n")
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--no-deps", *TOOLS], check=True)
        subprocess.run([*pip, *NEEDED, "--constraint", str(HERE.parent / "requirements.lock")], check=True)
        (folder / "ready").touch()
    return python


def main() -> int:
    """Export, let the tools steer, compare."""
    try:
        python = environment()
    except subprocess.CalledProcessError:
        print("vector_exports: the tools cannot be installed here; nothing was compared")
        return 0
    with tempfile.TemporaryDirectory() as name:
        completed = subprocess.run(
            [str(python), __file__, "--inside", name],
            env={**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            check=False,
        )
    if completed.returncode:
        print("vector_exports: a tool failed; run with --inside FOLDER in its environment to see why")
        return 1
    differences: dict[str, float] = json.loads(completed.stdout.splitlines()[-1])
    moved = differences.pop("moved")
    print(f"{'tool':40} {'greatest difference':>20}   (steering moves the logits by up to {moved:.2f})")
    for tool, difference in differences.items():
        print(f"{tool:40} {difference:20.1e}   {'ok' if difference <= BOUND else 'FAIL'}")
        told = f"greatest difference of steered logits in {tool}; steering moves them by up to {moved:.2f}"
        line = {"ratio": difference, "low": difference, "high": difference, "n": 1, "holds": difference <= BOUND}
        print(json.dumps({"benchmark": "exported vectors", **line, "bound": f"<= {BOUND:g}", "told": told}))
    return 0 if moved > 0.1 and max(differences.values()) <= BOUND else 1


def inside(folder: Path) -> dict[str, float]:
    """In the tools' environment: differences by tool."""
    import numpy as np

    setattr(np, "float_", np.float64)  # noqa: B010  # repeng 0.4.0 asks for it
    sys.path[0] = str(HERE.parent / "tests")  # beside this file lies a steering_vectors.py that is not the tool
    import gguf
    import repeng
    import steering_vectors
    import torch
    from conftest import rows
    from decoders import decoder, letters
    from lm_eval.models.hf_steered import SteeredModel

    from lightning_steer import vectors
    from lightning_steer.lm.language_model import LLM
    from lightning_steer.methods import MeanDifference
    from lightning_steer.vectors import exchange
    from lightning_steer.vectors.constant import by_layer

    decoder("llama").save_pretrained(folder / "model")
    letters().save_pretrained(folder / "model")
    llm = LLM(str(folder / "model"), LAYERS)
    llm.load()
    maps: dict[str, Any] = {site: MeanDifference(32).fit(rows(i, d=32)) for i, site in enumerate(llm.sites)}
    vector = vectors.of(llm, maps, 1.5)
    for form, name in (("gguf", "v.gguf"), ("steered", "v.pt"), ("plain", "v.safetensors")):
        exchange.export(vector, folder / name, form)
    ids, model = torch.tensor(IDS), llm.model
    plain = model(ids).logits
    with vectors.edit(llm, vector):
        expected = model(ids).logits

    def difference(logits: torch.Tensor) -> float:
        return float((logits - expected).abs().max())

    differences = {"moved": difference(plain)}
    for name in ("v.gguf", "v.pt", "v.safetensors"):
        with vectors.edit(llm, exchange.read(folder / name)):
            differences[f"ours, read back from {name}"] = difference(model(ids).logits)
    with steering_vectors.SteeringVector(by_layer(vector)).apply(model):
        differences["steering-vectors 0.12.2"] = difference(model(ids).logits)
    control = repeng.ControlModel(model, LAYERS)
    control.set_control(repeng.ControlVector.import_gguf(folder / "v.gguf"))
    differences["repeng 0.4.0, from v.gguf"] = difference(control(ids).logits)
    control.unwrap()
    harness = SteeredModel(
        pretrained=str(folder / "model"), steer_path=str(folder / "v.pt"), device="cpu", dtype="float32"
    )
    differences["lm-evaluation-harness 0.4.13, from v.pt"] = difference(harness._model_call(ids))
    read = {t.name: torch.from_numpy(t.data.copy()) for t in gguf.GGUFReader(folder / "v.gguf").tensors}
    pairs = [(read[f"direction.{layer}"], value) for layer, value in by_layer(vector).items()]
    differences["gguf 0.19.0, the vectors"] = max(float((a - b).abs().max()) for a, b in pairs)
    return differences


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        print("\n" + json.dumps(inside(Path(sys.argv[2]))))
    else:
        sys.exit(main())
