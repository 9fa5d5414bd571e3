"""Reads `airflow_settings.yaml` strictly and fills its placeholders; `include.stack.deploy` loads the result into Airflow."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from include.settings import get_settings, read_secrets
from include.stack.errors import StackError

PLACEHOLDER = re.compile(r"\$\{([A-Z][A-Z0-9_]*)\}")
SECRET_FIELDS = ("conn_password",)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ConnectionSetting(_Strict):
    """A connection, in the Astro CLI's words."""

    conn_id: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")
    conn_type: str = Field(min_length=1)
    conn_host: str | None = None
    conn_schema: str | None = None
    conn_login: str | None = None
    conn_password: str | None = None
    conn_port: int | None = Field(default=None, ge=1, le=65535)
    conn_extra: dict[str, Any] | None = None


class PoolSetting(_Strict):
    """A pool and its number of slots."""

    pool_name: str = Field(min_length=1)
    pool_slot: int = Field(ge=1)
    pool_description: str = ""


class VariableSetting(_Strict):
    """A variable; its value is a text."""

    variable_name: str = Field(min_length=1)
    variable_value: str


class AirflowSettings(_Strict):
    """The contents of `airflow_settings.yaml`."""

    connections: tuple[ConnectionSetting, ...] = ()
    pools: tuple[PoolSetting, ...] = ()
    variables: tuple[VariableSetting, ...] = ()

    @field_validator("connections", "pools", "variables")
    @classmethod
    def _named_once(cls, entries: tuple[Any, ...]) -> tuple[Any, ...]:
        names = [next(iter(entry.model_dump().values())) for entry in entries]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"named more than once: {', '.join(repeated)}")
        return entries


def placeholders() -> dict[str, str]:
    """What `${NAME}` may stand for: every secret, and where the warehouse is."""
    host, port, database = get_settings().warehouse_address
    return {**read_secrets(get_settings().secrets_path), "WAREHOUSE_HOST": host, "WAREHOUSE_PORT": str(port), "WAREHOUSE_DATABASE": database}


def settings_file() -> Path:
    """The one source of connections, pools and variables."""
    return get_settings().repository / "airflow_settings.yaml"


def load_airflow_settings(path: Path, values: Mapping[str, str]) -> AirflowSettings:
    """Reads, checks and fills the file.

    Args:
        path: The file, in the Astro format.
        values: What the placeholders stand for.

    Raises:
        StackError: If the file is missing or no YAML, has an unknown key, a wrong value, a password in clear text or a placeholder without a value.
            The message never holds a value of a placeholder.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StackError(f"{path} is missing", "restore it: `git checkout airflow_settings.yaml`") from None
    except yaml.YAMLError as error:
        raise StackError(f"{path.name} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict) or set(document) != {"airflow"} or not isinstance(document["airflow"], dict):
        raise StackError(f"{path.name} must have exactly one top-level key, `airflow`, with connections, pools and variables below it")
    for entry in document["airflow"].get("connections") or ():
        for field in SECRET_FIELDS:
            clear = str(entry.get(field) or "") if isinstance(entry, dict) else ""
            if PLACEHOLDER.sub("", clear):
                raise StackError(
                    f"{path.name}: {entry.get('conn_id')}.{field} holds a secret in clear text", "write ${NAME} and put NAME=value into .tidemark/secrets"
                )
    missing: set[str] = set()
    filled = _fill(document["airflow"], values, missing)
    if missing:
        raise StackError(f"{path.name}: no value for {', '.join('${' + name + '}' for name in sorted(missing))}", f"add it to {get_settings().secrets_path}")
    try:
        return AirflowSettings.model_validate({name: entries or () for name, entries in filled.items()})
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors(include_input=False, include_context=False))
        raise StackError(f"{path.name}: {found}") from None


def _fill(node: Any, values: Mapping[str, str], missing: set[str]) -> Any:  # noqa: ANN401  YAML
    if isinstance(node, dict):
        return {key: _fill(value, values, missing) for key, value in node.items()}
    if isinstance(node, list):
        return [_fill(value, values, missing) for value in node]
    if not isinstance(node, str):
        return node
    missing.update(name for name in PLACEHOLDER.findall(node) if name not in values)
    return PLACEHOLDER.sub(lambda match: values.get(match[1], ""), node)
