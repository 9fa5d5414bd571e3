"""`python -m include.contracts`: writes what is generated from the contracts, checks it, or starts a migration.

    python -m include.contracts                          write generated files
    python -m include.contracts --check                  exit 1 and name them where any is stale
    python -m include.contracts revision 0004 0003 stream …   release contracts: the migration that makes or widens their tables

`tidemark contracts revision` does the latter with the next number, for every contract that changed.
"""

from __future__ import annotations

import argparse
import sys

from include.contracts import DefinitionError, streams
from include.contracts.compile import REPOSITORY, stale_files, write_generated
from include.contracts.release import release_problems, unreleased_changes, write_release


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m include.contracts", description="Write or check what is generated from the contracts.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a generated file is stale")
    commands = parser.add_subparsers(dest="command")
    revision = commands.add_parser("revision", help="release contracts: write the migration that makes or widens their raw tables")
    revision.add_argument("number", help="number of the new revision, such as 0004")
    revision.add_argument("after", help="number of the revision before it")
    revision.add_argument("streams", nargs="+", help="streams whose contracts are released")
    options = parser.parse_args(arguments)
    try:
        if options.command == "revision":
            return write_revision(options.number, options.after, options.streams)
        if options.check:
            return check()
        for stream in streams():
            unreleased_changes(stream)
        for path in write_generated():
            sys.stdout.write(f"written {path}\n")
    except DefinitionError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def check() -> int:
    """Names stale files and contracts that are not released on standard error; 1 where there are any."""
    stale, problems = stale_files(), release_problems()
    for line in stale:
        sys.stderr.write(f"{line}; run `python -m include.contracts` and commit the result\n")
    for line in problems:
        sys.stderr.write(f"{line}\n")
    return 1 if stale or problems else 0


def write_revision(number: str, after: str, names: list[str]) -> int:
    """Releases contracts; never over a migration that exists, because it may have run somewhere."""
    migration = write_release(names, number, after)
    sys.stdout.write(f"written {migration.relative_to(REPOSITORY)}\n" if migration else "released; no table changes\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
