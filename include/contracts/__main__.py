"""`python -m include.contracts`: writes what is generated from the contracts, checks it, or starts a migration.

    python -m include.contracts                          write generated files
    python -m include.contracts --check                  exit 1 and name them where any is stale
    python -m include.contracts revision 0004 0003 new_stream …   write the migration that makes the tables of new streams

A new field of an existing stream needs the table as it is: `change_ddl` (docs/runbooks/add-a-stream.md).
"""

from __future__ import annotations

import argparse
import sys

from include.contracts import DefinitionError, load_contract
from include.contracts.compile import REPOSITORY, revision_text, stale_files, table_ddl, write_generated

VERSIONS = REPOSITORY / "include" / "warehouse" / "migrations" / "versions"


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m include.contracts", description="Write or check what is generated from the contracts.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a generated file is stale")
    commands = parser.add_subparsers(dest="command")
    revision = commands.add_parser("revision", help="write the migration that makes the raw tables of new streams")
    revision.add_argument("number", help="number of the new revision, such as 0004")
    revision.add_argument("after", help="number of the revision before it")
    revision.add_argument("streams", nargs="+", help="streams whose tables it makes")
    options = parser.parse_args(arguments)
    try:
        if options.command == "revision":
            return write_revision(options.number, options.after, options.streams)
        if options.check:
            return check()
        for path in write_generated():
            sys.stdout.write(f"written {path}\n")
    except DefinitionError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def check() -> int:
    """Names stale files on standard error; 1 where there are any."""
    stale = stale_files()
    for line in stale:
        sys.stderr.write(f"{line}; run `python -m include.contracts` and commit the result\n")
    return 1 if stale else 0


def write_revision(number: str, after: str, streams: list[str]) -> int:
    """Writes a migration file; never over one that exists, because it may have run somewhere."""
    file = VERSIONS / f"{number}_raw_{'streams' if len(streams) > 1 else streams[0]}.py"
    if any(VERSIONS.glob(f"{number}_*.py")):
        sys.stderr.write(f"revision {number} exists already; give the next free number\n")
        return 1
    scripts = [table_ddl(load_contract(stream)) for stream in streams]
    file.write_text(revision_text(number, after, f"Make the raw tables of {', '.join(streams)}", scripts), encoding="utf-8")
    sys.stdout.write(f"written {file.relative_to(REPOSITORY)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
