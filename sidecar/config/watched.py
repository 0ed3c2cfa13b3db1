"""Files that are read again when they change."""

from pathlib import Path


def stamp(file: Path) -> tuple[int, int]:
    """Return what changes with the file: its time of change in nanoseconds and its inode; (0, 0) without a file."""
    try:
        found = file.stat()
    except OSError:
        return (0, 0)
    return (found.st_mtime_ns, found.st_ino)
