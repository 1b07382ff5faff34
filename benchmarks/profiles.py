"""Where the processor time of ``fit`` and ``test`` goes, in the four experiments, on a random 134M Llama.

Each experiment runs by its shipped configuration and the command line, on fewer rows, with one thread. Processor time
is told apart: the model's own forward (blocks and vocabulary head, without what hooks do), the hooks, reading the model
(its file, its fingerprint, and the check that its options can share a row), starting (imports and configuration), and
the rest. A line gives the share of hooks and the rest beside the forward. Bound: 0.10.

    OMP_NUM_THREADS=1 python benchmarks/profiles.py                       # six minutes
    OMP_NUM_THREADS=1 python benchmarks/profiles.py behaviours --where    # and the functions that take the rest
"""

import argparse
import contextlib
import cProfile
import io
import os
import pstats
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import lightning as L
import torch
from side_by_side import LLAMA, Timing, say
from transformers import AutoConfig, AutoModelForCausalLM

from lightning_steer import cli, hooks
from lightning_steer.data.pocket.module import vocabulary
from lightning_steer.data.pocket.text import tokenizer
from lightning_steer.lm import language_model
from lightning_steer.lm.decoder import Decoder
from lightning_steer.runs import provenance

ROOT = Path(__file__).parent.parent
FEW = ["--model.init_args.random_draws=3", "--model.init_args.random_curve=1"]
PART = "--data.init_args"
EXPERIMENTS: dict[str, tuple[list[str], list[str], list[str]]] = {
    "stereotypes": (["steer_stereoset", "methods/mean_difference"], ["fit", "test"], [*FEW, f"{PART}.per_type=4"]),
    "behaviours": (
        ["steer_behaviour", "methods/mean_difference"],
        ["fit", "test"],
        [*FEW, f"{PART}.source.init_args.per_topic=2"],
    ),
    "errors": (
        ["steer_mera", "methods/mera"],
        ["fit", "test"],
        [*FEW, f"{PART}.train=60", f"{PART}.calibration=30", f"{PART}.test=30"],
    ),
    "responses": (["responses"], ["predict"], [f"{PART}.file=prompts.txt", "--model.init_args.max_new_tokens=16"]),
}
"""Configurations, commands and further options; responses need what behaviours have fitted."""


class Clock:
    """Processor seconds by kind of work; what runs inside another kind counts for itself alone."""

    def __init__(self) -> None:
        self.spent, self.kinds, self.since = Counter[str](), ["start"], time.process_time()

    def _turn(self) -> None:
        now = time.process_time()
        self.spent[self.kinds[-1]] += now - self.since  # type: ignore[assignment]
        self.since = now

    def begin(self, kind: str) -> None:
        """Go over to a kind of work."""
        self._turn()
        self.kinds.append(kind)

    def end(self) -> None:
        """Go back."""
        self._turn()
        self.kinds.pop()

    def timed(self, kind: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a function."""

        def run(*args: Any, **kwargs: Any) -> Any:
            self.begin(kind)
            try:
                return function(*args, **kwargs)
            finally:
                self.end()

        return run


@contextmanager
def watched(clock: Clock) -> Iterator[None]:
    """Time the forward of every model that is read inside, its hooks and its reading."""
    adopt = Decoder.__init__

    def adopted(decoder: Decoder, model: Any) -> None:
        adopt(decoder, model)
        for module in {decoder.model, decoder.base}:
            module.register_forward_pre_hook(lambda *_: clock.begin("forward"))
            module.register_forward_hook(lambda *_: clock.end(), always_call=True)

    with contextlib.ExitStack() as stack:
        stack.enter_context(patch.object(Decoder, "__init__", adopted))
        for name in ("_replace", "_replace_input", "_repeat_rows"):
            made = getattr(hooks, name)
            wrapped = lambda *args, made=made: clock.timed("hooks", made(*args))  # noqa: E731
            stack.enter_context(patch.object(hooks, name, wrapped))
        for owner, name in ((Decoder, "verify"), (language_model, "load"), (provenance, "of_network")):
            stack.enter_context(patch.object(owner, name, clock.timed("reading", getattr(owner, name))))
        stack.enter_context(patch.object(L.Trainer, "_run", clock.timed("rest", L.Trainer._run)))
        yield


def run(name: str, llm: Path, where: bool) -> None:
    """Profile one experiment, and print."""
    configs, commands, options = EXPERIMENTS[name]
    arguments = [word for config in configs for word in ("--config", f"configs/{config}.yaml")]
    arguments += [f"--model.init_args.backbone.init_args.llm={llm}", *options]
    arguments += ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
    for command in commands:
        clock, profile = Clock(), cProfile.Profile()
        with watched(clock), profile if where else contextlib.nullcontext():
            with contextlib.redirect_stdout(io.StringIO()):
                cli.main([command, *arguments])
            clock._turn()
        spent = clock.spent
        others = spent["hooks"] + spent["rest"]
        share = others / (others + spent["forward"])
        parts = ", ".join(f"{kind} {spent[kind]:.1f} s" for kind in ("forward", "hooks", "rest", "reading", "start"))
        told = f"{name}, {command}: share of processor time that is not the model's own forward; {parts}"
        say("profile", Timing(share, share, share, others, spent["forward"], 1), "<= 0.10", told)
        if where:
            pstats.Stats(profile).sort_stats("tottime").print_stats(45)


def main() -> None:
    """Profile all experiments, or some."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="*", help=f"some of {', '.join(EXPERIMENTS)} (default: all)")
    parser.add_argument("--where", action="store_true", help="print the functions that take the time")
    options = parser.parse_args()
    words = tokenizer(vocabulary())
    torch.manual_seed(0)
    config = AutoConfig.for_model("llama", vocab_size=32000, **LLAMA)
    config.bos_token_id, config.eos_token_id, config.pad_token_id = (
        words.bos_token_id,
        words.eos_token_id,
        words.pad_token_id,
    )
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        Path("configs").symlink_to(ROOT / "configs")
        llm = Path(folder) / "model"
        AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(llm)
        words.save_pretrained(llm)
        Path("prompts.txt").write_text("\n\n".join(f"one day in town {i}" for i in ("A", "B", "C", "D")))
        for name in options.experiments or EXPERIMENTS:
            run(name, llm, options.where)


if __name__ == "__main__":
    main()
