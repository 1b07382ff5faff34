"""The chat as a page: one file of ours, served to this machine alone, which asks for nothing elsewhere.

The page lies below a random path, so that only who was shown its address can talk. The name of the host is checked, so
that no other site can reach it under a name of its own (DNS rebinding).
"""

import asyncio
import base64
import hashlib
import json
import re
import secrets
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

from lightning_steer.chat import commands
from lightning_steer.chat.session import Session
from lightning_steer.chat.strengths import COLUMNS, strength_range
from lightning_steer.errors import UserError, sentences
from lightning_steer.escapes import say

HOST = "127.0.0.1"
PAGE = Path(__file__).parent / "page.html"


BUSY = "an answer is being written: stop it, or wait for its end"


class BusyError(UserError):
    """Two things were asked for at once."""


def serve(session: Session, port: int = 0) -> None:
    """Serve the page until Ctrl-C; raises ValueError if the port cannot be had.

    Args:
        session: the chat; all who open the page share it.
        port: 0 for one that is free.
    """
    if not 0 <= port <= 65535:
        raise UserError(f"--port must lie between 0 and 65535, not {port}")
    try:
        listening = socket.create_server((HOST, port))
    except OSError as error:
        raise UserError(f"port {port} cannot be had ({error.strerror}): name another with --port") from error
    path = secrets.token_urlsafe(12)
    say(f"http://{HOST}:{listening.getsockname()[1]}/{path}/")
    say("Open this address in a browser on this machine; Ctrl-C ends the chat.")
    with suppress(KeyboardInterrupt):  # raised again by the server after it has shut down
        server(session, path).run(sockets=[listening])


def server(session: Session, path: str) -> uvicorn.Server:
    """Return a server of the page below ``path``, to be run on a socket that listens."""
    page = _Page(session)
    settings = uvicorn.Config(
        _application(page, path), log_level="warning", access_log=False, ws="none", timeout_graceful_shutdown=5
    )
    return _Server(settings, page)


class _Server(uvicorn.Server):
    """Stops the answer that is being written before it shuts down."""

    def __init__(self, config: uvicorn.Config, page: "_Page") -> None:
        super().__init__(config)
        self.page = page

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.page.stopping.set()
        await super().shutdown(sockets)


def _application(page: "_Page", path: str) -> Starlette:
    """Return the application: the page and what it asks for, below ``path``."""
    routes = [
        Route("/", page.show),
        Route("/state", page.state),
        Route("/command", page.command, methods=["POST"]),
        Route("/ask", page.ask, methods=["POST"]),
        Route("/stop", page.stop, methods=["POST"]),
    ]
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"], www_redirect=False)
    return Starlette(routes=[Mount(f"/{path}", routes=routes)], middleware=[hosts])


class _Page:
    """What the page asks for."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.busy, self.stopping = threading.Lock(), threading.Event()
        self.html = PAGE.read_text("utf-8")
        parts = [re.findall(rf"<{tag}>(.*?)</{tag}>", self.html, re.S) for tag in ("script", "style")]
        scripts, styles = (" ".join(f"'sha256-{_digest(text)}'" for text in texts) for texts in parts)
        self.policy = (
            f"default-src 'none'; script-src {scripts}; style-src {styles}; connect-src 'self'; img-src data:; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )

    async def show(self, _request: Request) -> Response:
        headers = {"Content-Security-Policy": self.policy, "Cache-Control": "no-store"}
        return HTMLResponse(self.html, 200, headers)

    async def state(self, _request: Request) -> Response:
        return JSONResponse(state(self.session))

    async def command(self, request: Request) -> Response:
        """Run a line that begins with a slash, and say what is set now."""
        try:
            line = await _text(request, "line")
            reply = await run_in_threadpool(self._alone, lambda: commands.run(self.session, line))
        except Exception as error:
            return _refused(error)
        text = "End the chat with Ctrl-C in its terminal." if reply.ends else reply.text
        return JSONResponse({"text": text, "ask": reply.ask, "state": state(self.session)})

    async def ask(self, request: Request) -> Response:
        """Answer a message: a line of JSON for every token, with the texts of all columns so far."""
        try:
            message = await _text(request, "message")
        except Exception as error:
            return _refused(error)
        return StreamingResponse(self._written(message), media_type="application/x-ndjson")

    async def stop(self, _request: Request) -> Response:
        """End the answer that is being written, where it is."""
        self.stopping.set()
        return JSONResponse({})

    def _alone(self, action: Callable[[], Any]) -> Any:
        """Do something while no answer is written."""
        if not self.busy.acquire(blocking=False):
            raise BusyError(BUSY)
        try:
            return action()
        finally:
            self.busy.release()

    async def _written(self, message: str) -> AsyncIterator[str]:
        """Yield what is written, until it is done or nobody listens any more."""
        if not self.busy.acquire(blocking=False):
            yield json.dumps({"error": BUSY}) + "\n"
            return
        loop, lines = asyncio.get_running_loop(), asyncio.Queue[dict[str, Any] | None]()
        stop = self.stopping = threading.Event()

        def put(line: dict[str, Any] | None) -> None:
            with suppress(RuntimeError):  # the server has ended
                loop.call_soon_threadsafe(lines.put_nowait, line)

        def work() -> None:
            try:
                self.session.ask(message, lambda texts: put({"texts": texts}), stop.is_set)
                put({"state": state(self.session)})
            except Exception as error:
                put({"error": _sentence(error)})
            finally:
                self.busy.release()
                put(None)

        threading.Thread(target=work).start()
        try:
            while (line := await lines.get()) is not None:
                yield json.dumps(line) + "\n"
        finally:
            stop.set()  # the page was closed


def state(session: Session) -> dict[str, Any]:
    """Return all that the page shows, as plain JSON values."""
    vector, allowed = session.vector, strength_range(session.vector)
    return {
        "model": session.llm.name,
        "chat": session.llm.chat,
        "setting": commands.setting(session),
        "units": vector.card.strength.units,
        "identity": allowed.identity,
        "steps": allowed.steps,
        "most": COLUMNS,
        "strengths": session.strengths,
        "card": str(vector),
        "notes": session.notes,
        "messages": session.messages,
        "turns": [turn._asdict() for turn in session.turns],
    }


async def _text(request: Request, name: str) -> str:
    """Return a text from the JSON of a request; raises ValueError."""
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":  # no other site can send it
        raise UserError("the request is not of the type application/json")
    try:
        value = (await request.json())[name]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UserError(f"the request is no JSON object with a text {name!r}") from error
    if not isinstance(value, str):
        raise UserError(f"{name} is {str(value)[:40]!r}, not a text")
    return value


def _refused(error: Exception) -> Response:
    """Return the sentence; a mistake is no failure of the page, so its status is that of any answer."""
    return JSONResponse({"error": _sentence(error)})


def _sentence(error: Exception) -> str:
    """Return the sentence of a user's mistake; raises again what is none."""
    sentence = sentences.of_exception(error)
    if sentence is None:
        raise error
    return sentence


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
