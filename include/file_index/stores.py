"""Looking for the bytes of files of the index where they are to lie."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

from include.file_index.find import IndexedFile
from include.file_index.kinds import Kind
from include.landing.object_store import ObjectStore
from include.landing.originals import find_landed
from include.landing.zone import Zone
from include.settings import get_settings

LOOKS_AT_ONCE = 8  # requests to a store; a look is a round trip, and a data set may have thousands of files


class Stores:
    """Zone and lake, each opened when a file of it is looked for."""

    @cached_property
    def zone(self) -> Zone:
        """The landing zone."""
        return Zone(get_settings().zone_url)

    @cached_property
    def lake(self) -> ObjectStore:
        """The lake."""
        return ObjectStore(get_settings().lake_root, "TIDEMARK_LAKE_URL")

    def holds(self, file: IndexedFile, *, by_content: bool = False) -> bool:
        """Whether the bytes of a file are where the index says.

        Args:
            file: The file.
            by_content: Read them and compare their SHA-256. Otherwise the store's word is taken: in the zone the version tag (the bytes are read only where it
                is another one), in the lake, where no name is given twice, the size.

        Raises:
            ZoneError: If the store cannot be reached or refuses.
        """
        try:
            if file.kind == Kind.LAKE:
                if by_content:
                    return self.lake.content_hash(file.address).hex() == file.content_hash
                return bool(self.lake.info(file.address)["size"] == file.size_bytes)
            return find_landed(self.zone, file.address, "" if by_content else file.version_tag, bytes.fromhex(file.content_hash)) is not None
        except FileNotFoundError:
            return False

    def missing(self, files: Iterable[IndexedFile], *, by_content: bool = False) -> set[int]:
        """Numbers of the files whose bytes are not where the index says; arguments and errors as `holds`."""
        listed = list(files)
        with ThreadPoolExecutor(LOOKS_AT_ONCE) as pool:
            there = pool.map(lambda file: self.holds(file, by_content=by_content), listed)
            return {file.file_id for file, is_there in zip(listed, there, strict=True) if not is_there}
