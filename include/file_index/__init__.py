"""The file index: every file of the house, in zone and lake; which files a data set was made of; and how much space all of it takes.

It stands beside landing and lake and reads the books of both. Nothing here moves or removes a file.
"""

from __future__ import annotations

from include.file_index.errors import FileIndexError

__all__ = ["FileIndexError"]
