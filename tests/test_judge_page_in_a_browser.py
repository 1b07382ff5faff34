"""The page of a judgement in headless Chromium, on a phone and on a desk: all of it there, nothing asked of anybody."""

import random
from pathlib import Path

import browser
import pytest

import lightning_steer as ls

pytestmark = pytest.mark.skipif(browser.CHROMIUM is None, reason="Chromium is not installed")

WIDTHS = {390: 844, 1280: 900}
STRENGTHS = (-1, 0, 1, 2, 3)
LONG = "a_measure_whose_name_is_one_long_word_without_any_place_to_break_it"
HOSTILE = "<img src=http://elsewhere.example/x onerror=document.title='ran'>"


def outcomes(folder: Path) -> list[str]:
    """Write tables with groups, three judges, positions of answers, and names that are long or hostile."""
    draw, items = random.Random(0), 200
    with (folder / "judged.csv").open("w") as file:
        file.write("item,strength,measure,group,judge,value\n")
        for i in range(items):
            luck = draw.random()
            for strength in STRENGTHS:
                for measure, chance in (("refused", 0.3 + 0.2 * abs(strength)), (LONG, 0.9 - 0.02 * strength)):
                    right = luck < chance
                    start = f"q{i},{strength},{measure},{('safe', HOSTILE)[i % 2]}"
                    file.write(f"{start},llm,{right or draw.random() < 0.1}\n{start},other,{right}\n")
                    if i < 120:
                        file.write(f"{start},human,{right}\n")
    with (folder / "answers.csv").open("w") as file:
        file.write("item,strength,matching,p_a,p_b\n")
        for i in range(40):
            for strength in STRENGTHS:
                p_a = min(max(0.5 + 0.4 * strength + draw.uniform(-0.05, 0.05), 0.01), 0.95)
                file.write(f"question-{i},{strength},{'AB'[i % 2]},{p_a:.4f},{0.96 - p_a:.4f}\n")
    return [str(folder / name) for name in ("judged.csv", "answers.csv")]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    judgement = ls.judge(outcomes(folder), "refused>=0", {f"{LONG} falls": 0.1}, judge="llm", human="human")
    judgement.save(folder / "judgement.html")
    return folder / "judgement.html"


CUT = """[...document.querySelectorAll('body *')].filter((one) => {
  const box = one.getBoundingClientRect();
  return !one.closest('svg') && !one.closest('.wide') && box.width && (box.right > innerWidth + 1 || box.left < -1);
}).map((one) => one.outerHTML.slice(0, 80))"""
HIDDEN = """[...document.querySelectorAll('main td, main th[scope=row], main p, main li')].filter((one) =>
  !one.getClientRects().length || getComputedStyle(one).visibility !== 'visible'
).map((one) => one.outerHTML.slice(0, 80))"""
LABELS = """[...document.querySelectorAll('svg text')].filter((one) => {
  const box = one.getBoundingClientRect(), whole = one.ownerSVGElement.getBoundingClientRect();
  return box.right > whole.right + 2 || box.left < whole.left - 2;
}).map((one) => one.textContent)"""


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_cut_off_hidden_or_asked_for(width: int, page: Path, tmp_path: Path) -> None:
    with browser.Browser(tmp_path / "profile", width, WIDTHS[width]) as chromium:
        chromium.open(page.as_uri())
        assert chromium.run("document.documentElement.scrollWidth") <= width
        for script in (CUT, HIDDEN, LABELS):
            assert chromium.run(script) == []
        assert chromium.run("document.querySelectorAll('script, img, iframe, form, [onclick]').length") == 0
        assert chromium.run("document.title").startswith("Judgement: Setting ")
        assert "is certified at confidence 0.95" in chromium.run("document.querySelector('.verdict').innerText")
        sections = chromium.run("[...document.querySelectorAll('h1, h2, h3')].map((one) => one.innerText)")
        assert {"Promises", "refused", LONG, "matching", "answer_mass", "Notes"} <= set(sections)
        assert chromium.run("document.querySelectorAll('svg').length") == 4
        assert HOSTILE in chromium.run("document.body.innerText")
        chromium.picture(tmp_path / f"{width}.png")
        assert chromium.requested == [page.as_uri()]
        assert chromium.complaints == []


def test_the_page_says_the_same_without_scripts(page: Path, tmp_path: Path) -> None:
    with browser.Browser(tmp_path / "profile") as chromium:
        chromium.open(page.as_uri())
        text = chromium.run("document.body.innerText")
        chromium.send("Emulation.setScriptExecutionDisabled", value=True)
        chromium.open(page.as_uri())
        assert chromium.run("document.body.innerText") == text
