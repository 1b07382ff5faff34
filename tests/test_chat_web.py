"""The chat as a page: served to this machine alone; what the steered model writes is what is read on it."""

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chats import BASE, direction, tiny
from conftest import ROOT

from lightning_steer.chat.session import Session
from lightning_steer.lm.language_model import LLM

pytest.importorskip("uvicorn", reason="the extra `web` is not installed")
pytest.importorskip("starlette", reason="the extra `web` is not installed")

import browser
from commands import LIMIT

from lightning_steer.chat import web

NEEDS_CHROMIUM = pytest.mark.skipif(browser.CHROMIUM is None, reason="Chromium is not installed")
LONG = 100_000


class Served:
    """A session that is served, and requests to it."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.server = web.server(session, "path")
        self.listening = socket.create_server((web.HOST, 0))
        self.port = self.listening.getsockname()[1]
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.listening]})
        self.thread.start()

    def close(self) -> None:
        self.server.should_exit = True
        self.thread.join(LIMIT)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection(web.HOST, self.port, timeout=LIMIT)
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"Content_Type": "application/json", **headers}
        connection.request(method, path, content, {name.replace("_", "-"): value for name, value in sent.items()})
        return connection.getresponse()

    def lines(self, message: str) -> list[dict[str, Any]]:
        """All lines of an answer."""
        return [json.loads(line) for line in self.ask("POST", "/path/ask", {"message": message}).read().splitlines()]

    def command(self, line: str) -> dict[str, Any]:
        return json.loads(self.ask("POST", "/path/command", {"line": line}).read())


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    llm = tiny(chat=True, max_position_embeddings=1 << 20, eos_token_id=None)
    made = Served(Session(llm, direction(llm), [0, 1, -3], 8))
    yield made
    made.close()


@pytest.fixture(autouse=True)
def fresh(served: Served) -> None:
    served.session.max_new_tokens = 8
    served.session.set_vector(direction(served.session.llm), [0, 1, -3])
    served.session.messages = []


def test_the_answer_that_is_streamed_is_the_one_of_a_session(served: Served) -> None:
    lines = served.lines("the cat")
    llm = tiny(chat=True, eos_token_id=None)
    alone = Session(llm, direction(llm), [0, 1, -3], 8)
    assert [line["texts"] for line in lines[:-1]][-1] == alone.ask("the cat")
    assert len(lines) == 8 + 2  # one for each token, the whole, and what is set now
    assert lines[-1]["state"]["turns"] == [{"message": "the cat", "answers": alone.turns[0].answers}]
    assert served.lines("and")[-2]["texts"] == alone.ask("and")
    assert json.loads(served.ask("GET", "/path/state").read()) == served.lines("a")[-1]["state"] | {
        "turns": [turn._asdict() for turn in alone.turns],
        "messages": ["the cat", "and"],
    }


def test_commands_are_those_of_the_terminal(served: Served) -> None:
    reply = served.command("/strength 0 2")
    assert reply["state"]["strengths"] == served.session.strengths == [0, 2]
    assert reply["state"]["card"] == str(served.session.vector)
    assert served.command("/layer 9")["error"] == "layer 9 does not exist: tiny has 4, counted from 0"
    assert "its terminal" in served.command("/quit")["text"]
    served.lines("the cat")
    assert served.command("/again")["ask"] == ["the cat"]


HOSTS = ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "0.0.0.0", "169.254.1.1"]


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("path", ["/path/", "/path/state"])
def test_another_name_of_the_host_is_refused(served: Served, host: str, path: str) -> None:
    """As a browser sends it that a hostile site has told that its name is this machine."""
    assert served.ask("GET", path, Host=host).status == 400


def test_the_page_is_below_its_path_alone_and_may_load_nothing(served: Served) -> None:
    for host in (f"127.0.0.1:{served.port}", "localhost:1"):
        assert served.ask("GET", "/path/", Host=host).status == 200
    for path in ("/", "/state", "/other/", "/path/../", "/path/page.html", "/favicon.ico"):
        assert served.ask("GET", path).status == 404
    page = served.ask("GET", "/path/")
    policy, text = page.headers["Content-Security-Policy"], page.read().decode()
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "connect-src 'self'" in policy
    assert "unsafe" not in policy
    assert not re.findall(r"(?:https?:)?//[\w.]+\.\w+", text)
    assert page.headers["Access-Control-Allow-Origin"] is None
    assert served.ask("OPTIONS", "/path/ask").headers["Access-Control-Allow-Origin"] is None


def test_it_listens_on_this_machine_alone(served: Served) -> None:
    assert served.listening.getsockname()[0] == "127.0.0.1"


@pytest.mark.parametrize(
    ("path", "body", "words", "headers"),
    [
        ("ask", b"", "JSON", {}),
        ("ask", b"{", "JSON", {}),
        ("ask", b"[]", "JSON", {}),
        ("ask", b"\xff", "JSON", {}),
        ("ask", b"[" * 100_000, "JSON", {}),
        ("ask", {"line": "x"}, "'message'", {}),
        ("ask", {"message": 3}, "not a text", {}),
        ("ask", {"message": None}, "not a text", {}),
        ("command", {"line": ["/new"]}, "not a text", {}),
        ("command", {"line": "/layer \ud800"}, "UTF-8", {}),
        ("command", {"line": "hello"}, "'hello'", {}),
        ("command", {"line": "/save /"}, "ends in neither", {}),
        ("command", {"line": "/new"}, "application/json", {"Content_Type": "text/plain"}),
        ("ask", {"message": "x"}, "application/json", {"Content_Type": "application/x-www-form-urlencoded"}),
    ],
)
def test_a_bad_request_is_one_sentence(
    served: Served, path: str, body: Any, words: str, headers: dict[str, str]
) -> None:
    before = json.loads(served.ask("GET", "/path/state").read())
    reply = json.loads(served.ask("POST", f"/path/{path}", body, **headers).read())
    assert words in reply["error"]
    assert "\n" not in reply["error"]
    assert json.loads(served.ask("GET", "/path/state").read()) == before


@pytest.mark.parametrize("message", ["", " ", "\ud800"])
def test_a_bad_message_is_one_sentence(served: Served, message: str) -> None:
    (line,) = served.lines(message)
    assert line["error"]
    assert served.lines("the cat")[-1]["state"]["messages"] == ["the cat"]


def wait_for_text(answer: http.client.HTTPResponse) -> None:
    """Read until a column has one: the first tokens may be special ones."""
    while not any(json.loads(answer.readline())["texts"]):
        pass


def test_one_answer_at_a_time_and_it_can_be_stopped(served: Served) -> None:
    served.session.max_new_tokens = LONG
    answer = served.ask("POST", "/path/ask", {"message": "the cat"})
    wait_for_text(answer)
    assert "stop it" in served.lines("another")[0]["error"]
    assert "stop it" in served.command("/new")["error"]
    assert len(served.session.strengths) == 3
    served.ask("POST", "/path/stop", {})
    last = json.loads(answer.read().splitlines()[-1])
    assert [turn["message"] for turn in last["state"]["turns"]] == ["the cat"]
    served.session.max_new_tokens = 8
    assert served.lines("another")[-1]["state"]["messages"] == ["the cat", "another"]


def test_an_answer_that_nobody_reads_is_stopped(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    ended, ask = threading.Event(), served.session.ask

    def watched(*arguments: Any) -> list[str]:
        try:
            return ask(*arguments)
        finally:
            ended.set()

    monkeypatch.setattr(served.session, "ask", watched)
    served.session.max_new_tokens = LONG
    answer = served.ask("POST", "/path/ask", {"message": "the cat"})
    wait_for_text(answer)
    answer.close()  # with the connection, which nothing else holds
    assert ended.wait(LIMIT)
    (turn,) = served.session.turns
    assert any(turn.answers)
    assert all(len(text.split()) < LONG for text in turn.answers)  # some tokens are special and not shown


def test_a_server_that_is_told_to_stop_ends_the_answer(capfd: pytest.CaptureFixture[str]) -> None:
    llm = tiny(max_position_embeddings=1 << 20, eos_token_id=None)
    made = Served(Session(llm, direction(llm), [0, 1], LONG))
    answer = made.ask("POST", "/path/ask", {"message": "the cat"})
    wait_for_text(answer)
    made.close()
    assert "state" in json.loads(answer.read().splitlines()[-1])  # and not broken off
    assert "Traceback" not in capfd.readouterr().err


# ---- in a browser


@NEEDS_CHROMIUM
def test_type_move_a_slider_and_read_the_steered_text(tmp_path: Path) -> None:
    llm = LLM(BASE, 4)
    llm.load()
    vector = direction(llm, 6.0)
    vector.save(tmp_path / "v.safetensors")
    arguments = ["chat", "--web", "--llm", BASE, "--vector", str(tmp_path / "v.safetensors"), "--max_new_tokens", "12"]
    command = [sys.executable, "-m", "lightning_steer", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{16}/", address)
            with browser.Browser(tmp_path / "profile") as page:
                use_the_page(page, address, llm, vector)
            process.send_signal(signal.SIGINT)
            assert process.wait(LIMIT) == 0
        finally:
            process.kill()


ANSWERS = "[...document.querySelectorAll('#turns .answer p')].map((p) => p.textContent)"
SMALLEST = (
    "Math.min(...[...document.querySelectorAll('button, input, summary, textarea')]"
    ".map((one) => one.getBoundingClientRect()).flatMap((box) => [box.width, box.height]))"
)
HEADS = "[...document.querySelectorAll('#turns h3')].map((head) => head.textContent)"


def idle(turns: int, condition: str = "true") -> str:
    return (
        f"document.querySelectorAll('#turns li').length === {turns} && {condition} && "
        "document.querySelector('#turns').getAttribute('aria-busy') === 'false'"
    )


def use_the_page(page: browser.Browser, address: str, llm: LLM, vector: Any) -> None:
    message = "The hill bakers are"

    def expected(*strengths: float) -> list[str]:
        texts = []
        for strength in strengths:
            with vector.applied_to(llm, strength):
                texts.append(llm.generate(message, max_new_tokens=12) or "(nothing)")
        return texts

    page.open(address)
    page.wait("document.querySelectorAll('.strength').length === 2")
    assert page.run("document.querySelector('#card').textContent") == str(vector)
    page.run(
        f"window.seen = []; new MutationObserver(() => window.seen.push({ANSWERS}))"
        ".observe(document.querySelector('#turns'), {childList: true, subtree: true})"
    )
    page.type("#message", message)
    page.press("Enter")
    page.wait(idle(1))
    assert page.run(HEADS) == ["baseline (unsteered)", "strength 6"]
    whole, seen = expected(0, 6), page.run("window.seen")
    assert page.run(ANSWERS) == whole
    assert any(texts != whole and all(texts) for texts in seen)  # streamed
    assert all(text.startswith(begun) for texts in seen for text, begun in zip(whole, texts, strict=True))

    page.click("input[type=range]", 0.03)  # near its left end
    page.wait(idle(1, f"{HEADS}[1] !== 'strength 6'"))
    moved = float(page.run(HEADS)[1].removeprefix("strength "))
    assert -12 <= moved < -9
    assert page.run(ANSWERS) == expected(0, moved)
    assert page.run(ANSWERS)[0] != page.run(ANSWERS)[1]

    page.press("End")  # the slider is still the one that keys go to
    page.wait(idle(1, f"{HEADS}[1] === 'strength 12'"))
    assert page.run(ANSWERS) == expected(0, 12)

    page.click("#add")
    page.wait(idle(1, "document.querySelectorAll('.strength').length === 3"))
    third = float(page.run(HEADS)[2].removeprefix("strength "))
    assert page.run(ANSWERS) == expected(0, 12, third)

    page.type("#message", "/strength 0 <b>")
    page.press("Enter")
    page.wait("!document.querySelector('#error').hidden")
    assert "'<b>' is no number" in page.run("document.querySelector('#error').textContent")
    page.run("document.querySelector('#message').value = ''")
    page.type("#message", "/strength 0 6")
    page.press("Enter")
    page.wait("document.querySelectorAll('.strength').length === 2")
    for width, height in ((390, 844), (1280, 900)):
        page.resize(width, height)
        assert page.run("document.documentElement.scrollWidth") <= width
        assert page.run("document.querySelector('#send').getBoundingClientRect().bottom") <= height
        assert page.run(SMALLEST) >= (40 if width < 640 else 24)  # a finger's width, a mouse's
    page.open(address)  # what was said is there again
    page.wait(idle(0, "document.querySelectorAll('.strength').length === 2"))
    assert page.complaints == []
    assert page.hosts() == {"127.0.0.1"}


@NEEDS_CHROMIUM
def test_the_browser_of_the_tests_hears_of_complaints_and_other_hosts(tmp_path: Path) -> None:
    with browser.Browser(tmp_path) as page:
        page.run("console.error('no'), fetch('http://elsewhere.example/x').catch(() => 0)")
        assert any("no" in text for text in page.complaints)
        assert page.hosts() == {"elsewhere.example"}
