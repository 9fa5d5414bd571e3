"""Released contracts: what senders and readers may rely on, as copies beside the contracts, so that a change is compared with them and not with git.

`include/contracts/released/` is written by `tidemark contracts revision`, together with the migration of the raw table. Until then a contract is a draft.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import include.contracts as contracts
from include.contracts.changes import Change, Level, compare, is_raised, raised, required_level
from include.contracts.ddl import change_ddl, revision_text, table_columns, table_ddl
from include.contracts.errors import ContractError, DefinitionError
from include.contracts.majors import join_majors, older_file
from include.contracts.model import Contract
from include.contracts.parse import parse_contract, parse_contract_text
from include.contracts.yaml_text import read_yaml

REPOSITORY = Path(__file__).resolve().parents[2]
VERSIONS = REPOSITORY / "include" / "warehouse" / "migrations" / "versions"


def released_folder() -> Path:
    """Folder of the copies."""
    return contracts.CONTRACTS_FOLDER / "released"


def released(stream: str) -> Contract | None:
    """The released contract of a stream, with its older majors; None before its first release.

    Raises:
        ContractError: If a copy is no contract.
    """
    newest = released_folder() / f"{stream}.yaml"
    if not newest.exists():
        return None
    return join_majors(parse_contract(newest), [parse_contract(path) for path in released_folder().glob(f"{stream}.v*.yaml")])


def read_version(name: str) -> Contract:
    """The contract that a name on the command line means.

    Args:
        name: A file, a stream (`orders`), its released version (`orders@released`), or one of its majors (`orders@1`).

    Raises:
        ContractError: If there is none; the message says what can be written.
    """
    path = Path(name)
    if path.suffix in {".yaml", ".yml"} or path.exists():
        if not path.is_file():
            raise ContractError(name, "file", "does not exist", "give a contract file, a stream, STREAM@released or STREAM@MAJOR")
        text = path.read_text(encoding="utf-8")
        stream = read_yaml(text, name, ContractError).get("name")
        # A copy may have any name; one that is named as an older major is one, and may be retired.
        return parse_contract_text(text, path.name if path.name.startswith(f"{stream}.v") else f"{stream}.yaml")
    stream, sign, version = name.partition("@")
    contract = contracts.load_contract(stream)
    if not sign:
        return contract
    if version == "released":
        found = released(stream)
        if found is None:
            raise ContractError(f"{stream}.yaml", "released", "was never released", "run tidemark contracts revision")
        return found
    for each in (contract, *contract.older):
        if version == str(each.major):
            return each
    raise ContractError(f"{stream}.yaml", "version", f"there is no major {version!r}", "write STREAM@released or STREAM@MAJOR")


def unreleased_changes(stream: str) -> list[Change]:
    """What the contract of a stream changes against its release, all majors included.

    Raises:
        ContractError: If the change is not one that may be released: a breaking one without a new major, a version that was not raised, an older major that is
            missing. The message names what breaks, why, and the version to give.
    """
    before, now = released(stream), contracts.load_contract(stream)
    if before is None:
        return []
    file = f"{stream}.yaml"
    if now.major == before.major:
        found = _checked(file, before, now)
    else:
        found = compare(before, now)
        if now.major < before.major:
            raise ContractError(file, "version", f"{now.version} is older than the released {before.version}", f"give {raised(before.version, Level.MAJOR)}")
        if before.major not in {each.major for each in now.older}:
            problem = f"major {before.major} is released and its file {older_file(stream, before.major)} is missing"
            raise ContractError(file, "version", problem, "keep it under that name: stored rows follow it (status: retired once nobody sends it)")
    here = {each.major: each for each in now.older}
    for major in (before, *before.older):
        if major.major == now.major:
            continue
        if major.major not in here:
            problem = "was released and is gone"
            raise ContractError(older_file(stream, major.major), "file", problem, "put it back: stored rows follow it (status: retired once nobody sends it)")
        found += _checked(older_file(stream, major.major), major, here[major.major])
    return found


def _checked(file: str, before: Contract, now: Contract) -> list[Change]:
    changes = compare(before, now)
    level = required_level(changes)
    if level is Level.MAJOR:
        breaking = "; ".join(f"{change.place}: {change.what} ({change.why})" for change in changes if change.is_breaking)
        version = raised(before.version, Level.MAJOR)
        remedy = f"take it back, or give version {version} and keep the released contract as {older_file(now.stream, before.major)}"
        remedy = (
            f"{remedy}; see docs/runbooks/schema-change.md" if file == f"{now.stream}.yaml" else "take it back: an older major takes compatible changes only"
        )
        raise ContractError(file, "version", f"{now.version} breaks {before.version}: {breaking}", remedy)
    if level is not None and not is_raised(before.version, now.version, level):
        named = "; ".join(f"{change.place}: {change.what}" for change in changes)
        raise ContractError(file, "version", f"is still {now.version}, but the contract changed: {named}", f"give {raised(before.version, level)}")
    return changes


def release_problems() -> list[str]:
    """Contracts that are not what is released, a line each; empty where all are."""
    problems = []
    for stream in contracts.streams():
        try:
            changes = unreleased_changes(stream)
        except DefinitionError as error:
            problems.append(str(error))
            continue
        before = released(stream)
        if before is None or changes or before.version != contracts.load_contract(stream).version:
            problems.append(f"{stream}.yaml: version {contracts.load_contract(stream).version} is not released; run `tidemark contracts revision`")
    return problems


def unreleased_streams() -> list[str]:
    """Streams whose contract is not what is released.

    Raises:
        ContractError: See `unreleased_changes`.
    """
    return [stream for stream in contracts.streams() if unreleased_changes(stream) or _version(released(stream)) != contracts.load_contract(stream).version]


def write_release(streams: Sequence[str], number: str | None = None, after: str | None = None) -> Path | None:
    """Releases contracts: writes the migration that their tables need, and the copies by which later changes are judged.

    Args:
        streams: The streams.
        number: Number of the migration; the next one if not given.
        after: Number of the one before it; the last one if not given.

    Returns:
        The migration; None where no table changes.

    Raises:
        ContractError: If a change may not be released, or the number is taken.
    """
    if number is not None and any(VERSIONS.glob(f"{number}_*.py")):
        raise ContractError("migrations", f"revision {number}", f"revision {number} exists already", "give the next free number")
    made: list[str] = []
    changed: list[str] = []
    scripts: list[str] = []
    for stream in streams:
        contract, before = contracts.load_contract(stream), released(stream)
        unreleased_changes(stream)
        script = table_ddl(contract) if before is None else change_ddl(contract, table_columns(before))
        if script:
            (made if before is None else changed).append(stream)
            scripts.append(script)
    migration = None
    if scripts:
        last = _last_revision()
        after, number = after or last, number or f"{int(last) + 1:04d}"
        named = made + changed
        title = " and ".join(
            part for part in (made and f"make the raw tables of {', '.join(made)}", changed and f"add columns to {', '.join(changed)}") if part
        )
        migration = VERSIONS / f"{number}_{'raw' if made else 'columns'}_{named[0] if len(named) == 1 else 'streams'}.py"
        migration.write_text(revision_text(number, after, title[0].upper() + title[1:], scripts), encoding="utf-8")
    for stream in streams:
        _copy(stream)
    return migration


def _version(contract: Contract | None) -> str | None:
    return contract.version if contract is not None else None


def _copy(stream: str) -> None:
    folder = released_folder()
    folder.mkdir(exist_ok=True)
    files = [contracts.CONTRACTS_FOLDER / f"{stream}.yaml", *contracts.CONTRACTS_FOLDER.glob(f"{stream}.v*.yaml")]
    for file in files:
        (folder / file.name).write_text(file.read_text(encoding="utf-8"), encoding="utf-8")


def _last_revision() -> str:
    """Number of the migration that no other one follows.

    Raises:
        ContractError: If there are several: branches that have to be put in order first.
    """
    numbers, followed = set(_stated("revision")), set(_stated("down_revision"))
    heads = sorted(numbers - followed)
    if len(heads) != 1:
        raise ContractError("migrations", "down_revision", f"no migration or several come last: {', '.join(heads) or 'none'}", "put them in order")
    return heads[0]


def _stated(name: str) -> Iterator[str]:
    for path in VERSIONS.glob("*.py"):
        match = re.search(rf'^{name} = "(\w+)"$', path.read_text(encoding="utf-8"), re.MULTILINE)
        if match:
            yield match.group(1)
