"""Every setting of Tidemark, read once from the environment (prefix `TIDEMARK_`)."""

from __future__ import annotations

import os
import secrets as secret_source
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

REPOSITORY = Path(__file__).resolve().parent.parent


class SettingsError(RuntimeError):
    """A setting or secret is missing or wrong; the message says which one and what to do."""


class Settings(BaseSettings):
    """Where things are and how they are reached. Secrets are not here: they stay in `secrets_file`.

    `warehouse_url` names host, port and database, never a user: each component connects with a role of its own.
    """

    model_config = SettingsConfigDict(env_prefix="TIDEMARK_", frozen=True)

    repository: Path = Field(default=REPOSITORY, description="The checkout: DAGs, dbt project, contracts.")
    home: Path = Field(default=REPOSITORY / ".tidemark", description="Everything made at run time.")
    warehouse_url: str = Field(default="", description="postgresql://host:port/database of another server; empty means the embedded one.")
    landing_url: str = Field(default="", description="file:// or s3:// address of the landing zone; empty means <home>/zone.")
    landing_endpoint: str = Field(
        default="", description="http(s):// address of another provider's S3, for zone and lake; empty means AWS_ENDPOINT_URL_S3, or AWS itself."
    )
    lake_url: str = Field(default="", description="file:// or s3:// address of the lake; empty means <home>/lake.")
    secrets_file: Path | None = Field(default=None, description="Lines NAME=value; None means <home>/secrets.")
    postgres_port: int = Field(default=54329, ge=1024, le=65535, description="Port of the embedded server on 127.0.0.1.")
    postgres_max_connections: int = Field(default=120, ge=40)
    airflow_port: int = Field(default=8080, ge=1024, le=65535, description="Port of the Airflow API server.")
    airflow_host: str = Field(default="127.0.0.1", description="Address the Airflow API server binds to.")
    airflow_auth: str = Field(default="simple", pattern="^(simple|fab)$", description="Login of the Airflow UI: simple here, fab on a server.")
    gateway_host: str = Field(default="127.0.0.1", description="Address the gateway binds to.")
    gateway_port: int = Field(default=8090, ge=1024, le=65535, description="Port of the gateway.")
    gateway_group_ms: int = Field(default=200, ge=0, le=10_000, description="How long a post waits for others to share its file; longer means fewer files.")
    gateway_group_bytes: int = Field(default=1 << 20, ge=1024, description="A file of posts is closed at this size.")
    gateway_body_bytes: int = Field(default=8 << 20, ge=1024, le=16 << 20, description="Largest body as sent.")
    gateway_plain_bytes: int = Field(default=16 << 20, ge=1024, le=16 << 20, description="Largest body after decompression.")
    gateway_pending_bytes: int = Field(default=128 << 20, ge=16 << 20, description="Bodies that wait to be stored; beyond that senders are told to wait.")
    gateway_free_bytes: int = Field(default=1 << 30, ge=0, description="Free space of the zone's disk below which nothing is taken.")
    gateway_connections: int = Field(default=15_000, ge=10, description="Most connections, as far as the system allows so many open files.")
    gateway_head_seconds: float = Field(default=10, gt=0, le=120, description="How long the headers of a request may take.")
    gateway_body_seconds: float = Field(default=120, gt=0, le=3600, description="How long a body may take.")
    gateway_idle_seconds: int = Field(default=30, ge=1, le=3600, description="How long a connection is kept for a next request.")
    gateway_certificate: Path | None = Field(default=None, description="PEM file of the gateway's certificate chain; with gateway_key it speaks TLS.")
    gateway_key: Path | None = Field(default=None, description="PEM file of the certificate's private key.")
    gateway_client_ca: Path | None = Field(default=None, description="PEM file of the authority whose certificates devices must show (mutual TLS).")
    gateway_url: str = Field(default="", description="Address under which this machine posts; empty means gateway_host and gateway_port.")
    gateway_ca: Path | None = Field(default=None, description="PEM file of the authority that signed the gateway's certificate, where senders do not know it.")
    public_data: Path = Field(
        default=REPOSITORY.parent / "shared" / "data", description="Folder of public data sets that `make evaluate` reads; never part of the repository."
    )
    simulate: bool = Field(default=True, description="Whether the simulator DAG keeps producing while the stack is up.")

    @property
    def is_embedded(self) -> bool:
        """Whether the warehouse is the embedded server."""
        return not self.warehouse_url

    @property
    def warehouse_address(self) -> tuple[str, int, str]:
        """Host, port and database of the warehouse."""
        if self.is_embedded:
            return "127.0.0.1", self.postgres_port, "tidemark"
        parts = urlsplit(self.warehouse_url)
        if parts.scheme not in {"postgresql", "postgres"} or not parts.hostname or not parts.path.strip("/"):
            raise SettingsError(f"TIDEMARK_WAREHOUSE_URL must look like postgresql://host:5432/tidemark, got {parts.scheme}://{parts.hostname}{parts.path}")
        return parts.hostname, parts.port or 5432, parts.path.strip("/")

    @property
    def zone_url(self) -> str:
        """Address of the landing zone."""
        return self.landing_url or (self.home / "zone").resolve().as_uri()

    @property
    def gateway_address(self) -> str:
        """Where posts go from this machine."""
        if self.gateway_url:
            return self.gateway_url
        host = "127.0.0.1" if self.gateway_host in {"0.0.0.0", "::"} else self.gateway_host  # noqa: S104  compared, not bound
        return f"{'https' if self.gateway_certificate else 'http'}://{f'[{host}]' if ':' in host else host}:{self.gateway_port}"

    @property
    def lake_root(self) -> str:
        """Address of the lake."""
        return self.lake_url or (self.home / "lake").resolve().as_uri()

    @property
    def truth_dir(self) -> Path:
        """Where the simulator records what it made up: outside of the zone."""
        return self.home / "truth"

    @property
    def secrets_path(self) -> Path:
        """The file that holds every secret, mode 600."""
        return self.secrets_file or self.home / "secrets"

    @property
    def dbt_project_dir(self) -> Path:
        """The dbt project of the house."""
        return self.repository / "dbt_project"


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The settings of this process. Tests that change the environment call `get_settings.cache_clear()`."""
    return Settings()


def read_secrets(path: Path) -> dict[str, str]:
    """Reads lines `NAME=value`; lines that start with # and blank lines are skipped.

    Raises:
        SettingsError: If a line is neither.
    """
    if not path.exists():
        return {}
    found: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, separator, value = line.partition("=")
        if not separator or not name.strip():
            raise SettingsError(f"{path}, line {number}: expected NAME=value")
        found[name.strip()] = value
    return found


def secret(name: str) -> str:
    """A secret by name.

    Raises:
        SettingsError: If it was never generated.
    """
    path = get_settings().secrets_path
    value = read_secrets(path).get(name)
    if value is None:
        raise SettingsError(f"secret {name} is not in {path}; run `tidemark up`, which generates what is missing")
    return value


def ensure_secrets(names: list[str]) -> None:
    """Generates each named secret that does not exist yet. The file is replaced atomically and readable by its owner only."""
    path = get_settings().secrets_path
    known = read_secrets(path)
    missing = [name for name in names if name not in known]
    if not missing:
        return
    _write_secrets(known | {name: secret_source.token_urlsafe(32) for name in missing})


def store_secret(name: str, value: str) -> None:
    """Keeps a secret that was made elsewhere, in place of one of that name."""
    _write_secrets(read_secrets(get_settings().secrets_path) | {name: value})


def _write_secrets(known: dict[str, str]) -> None:
    lines = ["# Generated by Tidemark. Keep it, back it up, never commit it.\n", *(f"{name}={value}\n" for name, value in known.items())]
    write_private(get_settings().secrets_path, "".join(lines).encode())


def write_private(path: Path, data: bytes) -> None:
    """Writes a file that only its owner can read, and replaces one of that name atomically. Makes its folder.

    Raises:
        OSError: If the disk refuses; what was there stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(path)
