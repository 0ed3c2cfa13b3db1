"""Files that are read again when they change."""

from pathlib import Path


def stamp(file: Path) -> tuple[int, int]:
    """Return what differs once a file has changed: time of change in nanoseconds and inode, (0, 0) without a file."""
    try:
        found = file.stat()
    except OSError:
        return (0, 0)
    return (found.st_mtime_ns, found.st_ino)
