"""A real gateway process over a zone of its own, and what tests say to it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from include.gateway.keys.token import digest_of, id_of, new_token
from include.landing.posts import Post, read_frames
from include.landing.zone import DEFAULT_TENANT
from include.settings import REPOSITORY, write_private
from tests.support.databases import free_port

STREAM = "device_telemetry"
LISTENS = "listens on "
TIMEOUT_S = 60.0


@dataclass
class Gateway:
    """A running gateway.

    Attributes:
        process: Its process.
        home: Its TIDEMARK_HOME.
        port: Where it listens on 127.0.0.1.
        zone: Folder of its zone.
        key: The API key that it is talked to with.
        lines: What it has logged.
        is_over: Whether it logs no more, because it has ended.
        logged: Told of each line.
    """

    process: subprocess.Popen[str]
    home: Path
    port: int
    zone: Path
    key: str
    lines: list[str] = field(default_factory=list)
    is_over: bool = False
    logged: threading.Condition = field(default_factory=threading.Condition)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def headers(self) -> dict[str, str]:
        """What identifies the sender."""
        return {"Authorization": f"Bearer {self.key}"}

    @property
    def log(self) -> str:
        """What it has logged so far."""
        return "".join(self.lines)

    def wait_for_log(self, text: str) -> None:
        """Waits until it has logged a text."""
        with self.logged:
            if not self.logged.wait_for(lambda: text in self.log, TIMEOUT_S):
                raise TimeoutError(f"the gateway never logged {text!r}:\n{self.log}")

    def post(
        self, content: bytes, *, stream: str = STREAM, content_type: str = "application/x-ndjson", encoding: str | None = None, query: str = ""
    ) -> httpx.Response:
        """Posts a body."""
        headers = {**self.headers, "Content-Type": content_type, **({"Content-Encoding": encoding} if encoding else {})}
        return httpx.post(f"{self.url}/v1/streams/{stream}/events{query}", content=content, headers=headers, timeout=TIMEOUT_S)

    def request(self, *headers: str, method: str = "POST", path: str = f"/v1/streams/{STREAM}/events") -> bytes:
        """Head of a request that names host, key and NDJSON, and the given headers, as bytes for a socket."""
        lines = [f"{method} {path} HTTP/1.1", "Host: gateway", f"Authorization: Bearer {self.key}", "Content-Type: application/x-ndjson", *headers]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def connect(self) -> socket.socket:
        """A connection on which nothing was said yet."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=TIMEOUT_S)

    def talk(self, *pieces: bytes, is_over: bool = False) -> bytes:
        """Sends bytes and returns everything that comes until the gateway closes.

        Args:
            pieces: What to send, one after another.
            is_over: Say that nothing more comes (the sender's half of the connection is closed).
        """
        with self.connect() as connection:
            for piece in pieces:
                connection.sendall(piece)
            if is_over:
                connection.shutdown(socket.SHUT_WR)
            return read_all(connection)

    def files(self) -> list[Path]:
        """Every file of the zone, with those that are not complete."""
        return sorted(path for path in self.zone.rglob("*") if path.is_file())

    def posts(self) -> list[tuple[Post, bytes]]:
        """Every post of the zone, in order of arrival."""
        found = []
        for path in sorted(self.zone.rglob("*.posts")):
            with path.open("rb") as stream:
                found += list(read_frames(stream))
        return found

    def connections(self) -> int:
        """How many connections it has."""
        return sum(one.status == psutil.CONN_ESTABLISHED for one in psutil.Process(self.process.pid).net_connections("tcp"))

    def reset_peak(self) -> int:
        """Has Linux count `peak` from now on. Returns the bytes of memory that it holds."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5", encoding="ascii")
        return self.peak()

    def peak(self) -> int:
        """Most bytes of memory that it has held since `reset_peak`."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))) << 10

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Ends it. Returns its exit code."""
        self.process.send_signal(how)
        return self.process.wait(timeout=TIMEOUT_S)


def read_all(connection: socket.socket) -> bytes:
    """What comes until the other side closes; nothing more where it resets the connection."""
    parts = []
    try:
        while part := connection.recv(1 << 16):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def status_of(answer: bytes) -> int:
    """Status of an answer as it came; 0 where there is none."""
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


def lend_keys(home: Path, *keys: dict[str, object]) -> list[str]:
    """Writes the copy of a list of keys, as the warehouse would have given it, and returns their tokens.

    Args:
        home: TIDEMARK_HOME of the gateway, which must not run yet.
        keys: What is special about each; a key without anything special posts every stream of the tenant `default`.
    """
    tokens = [new_token() for _ in keys or [{}]]
    usual: dict[str, object] = {"tenant_id": DEFAULT_TENANT, "streams": None, "rate": None, "expires_at": None}
    listed = [
        {**usual, **special, "key_id": id_of(token.encode()), "digest": digest_of(token.encode()).hex()}
        for token, special in zip(tokens, keys or [{}], strict=True)
    ]
    write_private(home / "gateway" / "keys.json", json.dumps(listed).encode())
    return tokens


@contextmanager
def running_gateway(
    home: Path, zone: Path | str | None = None, *, port: int | None = None, key: str | None = None, module: str = "include.gateway", **settings: object
) -> Iterator[Gateway]:
    """A gateway that listens; it is killed at the end where it still runs.

    Args:
        home: Its TIDEMARK_HOME.
        zone: Folder or URL of its zone; None for one below its home.
        port: Where it listens; None for a free port.
        key: A key of its warehouse; None for one of the tenant `default`, known from the copy on disk, for a gateway without a warehouse.
        module: What is run.
        settings: Settings by their names, e.g. `gateway_group_ms=0`.
    """
    folder = zone if isinstance(zone, Path) else home / "zone"
    given = {name: str(value) for name, value in settings.items()}
    chosen = port or free_port()
    given |= {"home": str(home), "gateway_port": str(chosen), "landing_url": zone if isinstance(zone, str) else folder.resolve().as_uri()}
    environment = {**os.environ, **{f"TIDEMARK_{name.upper()}": value for name, value in given.items()}, "PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1"}
    key = key or lend_keys(home)[0]
    process = subprocess.Popen([sys.executable, "-m", module], env=environment, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    gateway = Gateway(process, home, chosen, folder, key)
    reader = threading.Thread(target=_keep_lines, args=(gateway,))
    reader.start()
    try:
        with gateway.logged:
            gateway.logged.wait_for(lambda: LISTENS in gateway.log or gateway.is_over, TIMEOUT_S)
        if LISTENS not in gateway.log:
            raise RuntimeError(f"the gateway did not start:\n{gateway.log}")
        yield gateway
    finally:
        process.kill()
        process.wait()
        reader.join()
        assert process.stdout is not None
        process.stdout.close()


def _keep_lines(gateway: Gateway) -> None:
    """Keeps what the process logs, so that it never waits for a reader."""
    assert gateway.process.stdout is not None
    for line in gateway.process.stdout:
        with gateway.logged:
            gateway.lines.append(line)
            gateway.logged.notify_all()
    with gateway.logged:
        gateway.is_over = True
        gateway.logged.notify_all()
