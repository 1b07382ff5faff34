"""Small made tables in the layouts of published outcomes, whose truth is known."""

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

STRENGTHS = ("0.0", "-0.1", "-0.2")
BEHAVIOURS = ("envy-kindness", "greed-charity", "wrath-patience")
CATEGORIES = 10


def _csv(path: Path, header: Sequence[str], rows: list[tuple[Any, ...]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def alphasteer(outcomes: Path, name: str, n: int, counts: Sequence[tuple[int, int]], group: str = "all") -> None:
    """Write a table of n items, half of them 1 at first; ``(gained, lost)`` at each steered strength."""
    rows = []
    for strength, (gained, lost) in zip(STRENGTHS, [(0, 0), *counts], strict=True):
        for i in range(n):
            is_first_half = i < n // 2
            value = i >= lost if is_first_half else i < n // 2 + gained
            groups = ("safe", "unsafe")[i % 2] if group == "two" else group
            rows.append((f"{name}-{i}", groups, strength, int(value)))
    _csv(outcomes / f"alphasteer_llama31_8b_{name}.csv", ("item", "group", "strength", "value"), rows)


def caa_dynamic(outcomes: Path, p_a: Callable[[float, str], float], items: int = 10, layers: int = 14) -> None:
    """Write three behaviours; ``p_a`` of a multiplier and the letter that matches, of both answers."""
    for behaviour in BEHAVIOURS:
        rows = []
        for layer in range(layers):
            for multiplier in range(-5, 6):
                mass = 0.99 if abs(multiplier) <= 2 else 0.2
                for i in range(items):
                    letter = "AB"[i % 2]
                    a = p_a(multiplier, letter)
                    rows.append((i, layer, float(multiplier), letter, mass * a, mass * (1 - a)))
        header = ("item", "layer", "multiplier", "matching", "p_a", "p_b")
        _csv(outcomes / f"caa_dynamic_llama2_7b_chat_{behaviour}.csv", header, rows)


def of_letter(multiplier: float, letter: str) -> float:
    return min(max(0.5 + 0.4 * multiplier, 0.02), 0.98)


def of_behaviour(multiplier: float, letter: str) -> float:
    shown = of_letter(multiplier, letter)
    return shown if letter == "A" else 1 - shown


def against(multiplier: float, letter: str) -> float:
    """Without steering the answer that does not match; either sign forces a letter."""
    return of_letter(multiplier, letter) if multiplier else 0.1 if letter == "A" else 0.9


def refusal_direction(outcomes: Path, name: str, chosen: tuple[int, int], **more: Any) -> dict[str, Any]:
    """Write a model whose best candidates break one part of the rule each, and the next best is chosen."""
    position, layer = chosen
    allowed = {"refusal_score": -5.0, "steering_score": 1.0, "kl_div_score": 0.05}
    best = {**allowed, "refusal_score": -9.0}
    candidates = [
        {"position": -3, "layer": 1, **best, "kl_div_score": 0.2},
        {"position": -3, "layer": 2, **best, "steering_score": -1.0},
        {"position": -3, "layer": 31, **best},
        {"position": -3, "layer": 3, **best, "kl_div_score": float("nan")},
        {"position": -3, "layer": 4, **best, "refusal_score": float("nan")},
        {"position": -2, "layer": 5, **allowed, "refusal_score": -4.0},
        {"position": position, "layer": layer, **allowed},
    ]

    def harmful(phrases: int, guard: int) -> list[dict[str, Any]]:
        return [
            {
                "category": f"category {i % CATEGORIES}",
                "is_jailbreak_substring_matching": int(i < phrases),
                "is_jailbreak_llamaguard2": int(i < guard),
            }
            for i in range(100)
        ]

    def harmless(answered: int) -> list[dict[str, Any]]:
        return [{"category": None, "is_jailbreak_substring_matching": int(i < answered)} for i in range(100)]

    losses = {text: {"ce_loss": 2.0, "n_tokens": 10} for text in ("pile", "alpaca")}
    record = {
        "model": name,
        "chosen": {"pos": position, "layer": layer},
        "candidates": candidates,
        "items": {
            "harmless_baseline": harmless(100),
            "harmless_actadd": harmless(3),
            "jailbreakbench_baseline": harmful(5, 3),
            "jailbreakbench_ablation": harmful(90, 70),
            "jailbreakbench_actadd": harmful(80, 70),
        },
        "loss": dict.fromkeys(("baseline", "ablation", "actadd"), losses),
        **more,
    }
    (outcomes / f"refusal_direction_{name}.json").write_text(json.dumps(record))
    return record


def caa(outcomes: Path, **means: list[float | None]) -> None:
    record = {"multipliers": [-1, -0.5, 0, 0.5, 1], "p_matching": means}
    (outcomes / "caa_golden.json").write_text(json.dumps(record))


def everything(folder: Path) -> Path:
    """Write all tables below ``folder/outcomes`` and return that folder."""
    outcomes = folder / "outcomes"
    outcomes.mkdir(parents=True)
    alphasteer(outcomes, "gsm8k_right", 200, [(0, 0), (3, 60)])
    for name in ("renellm_refused", "jailbroken_refused"):
        alphasteer(outcomes, name, 200, [(60, 0), (90, 0)])
    alphasteer(outcomes, "xstest_refused", 300, [(0, 0), (0, 0)], "two")
    caa_dynamic(outcomes, of_letter)
    refusal_direction(outcomes, "gemma-2b-it", (-2, 10))
    refusal_direction(outcomes, "llama-2-7b-chat-hf", (-1, 14))
    caa(outcomes, rising=[0.1, 0.2, 0.3, 0.4, 0.5], turning=[0.1, None, 0.5, None, 0.4])
    return outcomes
