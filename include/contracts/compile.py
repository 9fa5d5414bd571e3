"""Everything that is generated from the contracts and committed, and the check that it is not stale."""

from __future__ import annotations

from pathlib import Path

from include.contracts import load_contract, streams
from include.contracts.dbt_source import sources_yaml
from include.contracts.ddl import POSTGRES_TYPES, change_ddl, described_columns, revision_text, table_columns, table_ddl
from include.contracts.model import Contract
from include.contracts.reference import index_page, stream_page

REPOSITORY = Path(__file__).resolve().parents[2]
DBT_SOURCES = Path("dbt_project/models/staging/_sources_raw.yml")
PAGES = Path("docs/contracts")

__all__ = [
    "POSTGRES_TYPES",
    "change_ddl",
    "compile_files",
    "described_columns",
    "generated_files",
    "revision_text",
    "stale_files",
    "table_columns",
    "table_ddl",
    "write_generated",
]


def compile_files(contracts: list[Contract]) -> dict[Path, str]:
    """Text of every generated file of these contracts, by path relative to the repository."""
    files = {DBT_SOURCES: sources_yaml(contracts), PAGES / "README.md": index_page(contracts)}
    return files | {PAGES / f"{contract.stream}.md": stream_page(contract) for contract in contracts}


def generated_files() -> dict[Path, str]:
    """Text that every generated file should have, by path relative to the repository.

    Migrations are not among them: a revision is history once it ran somewhere, and a test compares the migrated tables with the contracts instead.
    """
    return compile_files([load_contract(stream) for stream in streams()])


def stale_files(root: Path = REPOSITORY, expected: dict[Path, str] | None = None) -> list[str]:
    """Generated files under `root` that are missing, differ from the contracts, or belong to no contract; each with its reason."""
    expected = generated_files() if expected is None else expected
    stale = []
    for path, text in sorted(expected.items()):
        file = root / path
        if not file.exists():
            stale.append(f"{path}: is missing")
        elif file.read_text(encoding="utf-8") != text:
            stale.append(f"{path}: differs from its contract")
    left_over = {page.relative_to(root) for page in (root / PAGES).glob("*.md")} - set(expected)
    return stale + [f"{path}: belongs to no contract" for path in sorted(left_over)]


def write_generated(root: Path = REPOSITORY) -> list[Path]:
    """Writes the generated files that are stale and removes pages of streams that are gone.

    Returns:
        Paths that were written or removed, relative to `root`.
    """
    changed = []
    expected = generated_files()
    for path, text in sorted(expected.items()):
        file = root / path
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
            changed.append(path)
    for page in sorted((root / PAGES).glob("*.md")):
        path = page.relative_to(root)
        if path not in expected:
            page.unlink()
            changed.append(path)
    return changed
