"""Which files make up a log, and a consistent view of them while they are written."""

import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from glob import glob, has_magic
from pathlib import Path
from typing import Final

from ..exceptions import ReadError
from ._lanes import COMPRESSED, Lane, Name, lanes_of, open_file
from ._lines import Envelope, LineDecoder, raw_lines
from ._lock import is_locked

__all__ = ["Paths", "StrPath", "find_files", "snapshot"]

StrPath = str | os.PathLike[str]
Paths = Iterable[StrPath]

DEFAULT_DIRECTORIES: Final = ("logs", ".Nibandha")
_SEARCHED: Final = re.compile(r"\.(jsonl|log)")
_UNFINISHED: Final = (".tmp", ".part", ".lock")
_BESIDE: Final = re.compile(r"(?P<stem>.+)\.(?P<writer>[a-z0-9]{8})")
_HANDLES: Final = 256  # files kept open at once, so that rotation and retention cannot pull them away
_FIRST_LINES: Final = 64 * 1024  # bytes looked at to learn who wrote a file
_LISTINGS: Final = 3  # a file that is renamed while its directory is listed may show under neither name
_SETTLE_TRIES: Final = 10
_SETTLE_PAUSE_S: Final = 0.005
_JUST_NOW_S: Final = 1.0

_ENVELOPES: Final = LineDecoder(Envelope)


# -- finding ----------------------------------------------------------------------------------------------------------


def find_files(paths: Paths) -> list[Path]:
    """The log files that the paths stand for, each once, sorted by name.

    A path is a file (its rotated and sibling segments come with it), a glob pattern, or a directory (searched
    recursively for `*.jsonl*` and `*.log*`). Without paths: `AMSHA_LOG_PATH`, else `logs/`, else `.Nibandha/`.
    Raises `ReadError` when a path stands for nothing, or a directory cannot be listed.
    """
    found: dict[Path, Path] = {}
    seen: set[tuple[int, int]] = set()
    for path in paths or _default_paths():
        for file in sorted(_expand(Path(path)), key=lambda file: (file.is_symlink(), file.name)):
            if file.absolute() not in found and _is_new(file, seen):
                found[file.absolute()] = file
    names = {str(file) for file in found}
    # While a segment is compressed both forms exist; the plain one is the complete one.
    return sorted(f for key, f in found.items() if not (key.suffix in COMPRESSED and str(key.with_suffix("")) in names))


def _is_new(file: Path, seen: set[tuple[int, int]]) -> bool:
    """Is it the first name of its file? Links to a log are no second log."""
    try:
        status = file.stat()
    except OSError:  # found out when it is read
        return True
    identity = status.st_dev, status.st_ino
    if identity in seen:
        return False
    seen.add(identity)
    return True


def _default_paths() -> list[str]:
    configured = os.environ.get("AMSHA_LOG_PATH")
    if configured:
        return [configured]
    for directory in DEFAULT_DIRECTORIES:
        if Path(directory).is_dir():
            return [directory]
    message = (
        f"no log here: AMSHA_LOG_PATH is not set, and there is no {' and no '.join(DEFAULT_DIRECTORIES)} directory"
    )
    raise ReadError(message)


def _expand(path: Path) -> list[Path]:
    if path.is_dir():
        return _search(path)
    for _ in range(_LISTINGS):
        family = _family(path)
        if family:
            return family
    matches = [Path(match) for match in glob(str(path), recursive=True)] if has_magic(str(path)) else []
    if not matches:
        message = f"cannot read {path}: {'not a regular file' if path.exists() else 'no such file or directory'}"
        raise ReadError(message)
    return [file for match in matches for file in (_search(match) if match.is_dir() else [match])]


def _search(directory: Path) -> list[Path]:
    def fail(error: OSError) -> None:
        message = f"cannot read {error.filename}: {error.strerror}"
        raise ReadError(message) from error

    found = []
    for folder, folders, names in os.walk(directory, onerror=fail):
        folders[:] = [name for name in folders if not name.endswith(".payloads")]
        for name in names:
            file = Path(folder, name)
            if _SEARCHED.search(name) and not name.endswith(_UNFINISHED) and file.is_file():
                found.append(file)
    return found


def _family(path: Path) -> list[Path]:
    """The file with its rotated segments and those of the writers beside it; empty if there is none of them."""
    wanted = Name.parse(path.name)
    try:
        entries = sorted(entry for entry in path.parent.iterdir() if entry.is_file())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        message = f"cannot read {path.parent}: {error.strerror}"
        raise ReadError(message) from error
    names = {entry: Name.parse(entry.name) for entry in entries if not entry.name.endswith(_UNFINISHED)}
    stem = wanted.stem
    beside = _BESIDE.fullmatch(stem)
    if beside is not None and _first_writer([e for e in names if names[e][:2] == wanted[:2]]) == beside["writer"]:
        stem = beside["stem"]
    return [
        entry
        for entry, name in names.items()
        if name.suffix == wanted.suffix and (name.stem == stem or _is_beside(entry, name, stem))
    ]


def _is_beside(entry: Path, name: Name, stem: str) -> bool:
    """Whether the file is a sibling writer's, not another log whose name happens to look like one."""
    beside = _BESIDE.fullmatch(name.stem)
    return beside is not None and beside["stem"] == stem and _first_writer([entry]) in (None, beside["writer"])


def _first_writer(files: Iterable[Path]) -> str | None:
    """The writer named by the first line that names one."""
    for file in files:
        try:
            with open_file(file) as stream:
                for line in raw_lines(stream, file, None if file.suffix == ".gz" else _FIRST_LINES):
                    envelope = _ENVELOPES.decode(line.data)
                    if envelope is not None:
                        return envelope.writer
        except FileNotFoundError:
            continue
    return None


# -- a consistent view ------------------------------------------------------------------------------------------------


@contextmanager
def snapshot(paths: Paths) -> Iterator[list[Lane]]:
    """The lanes as they are at one moment, also while their writers write, rotate and delete.

    The files of running writers are held open, and read up to the size they had. Raises `ReadError` as `find_files`
    does, or when an active file cannot be opened.
    """
    paths = list(paths)
    lanes: list[Lane] = []
    try:
        for tries_left in reversed(range(_SETTLE_TRIES)):
            _release(lanes)
            files = find_files(paths)
            lanes = lanes_of(files)
            if _hold(lanes, spare_new=tries_left > 0) and find_files(paths) == files:
                break  # nothing was rotated between listing the files and opening them
            time.sleep(_SETTLE_PAUSE_S if tries_left else 0)
        yield lanes
    finally:
        _release(lanes)


def _hold(lanes: list[Lane], *, spare_new: bool) -> bool:
    """Open what writers hold locked. False: some writer is just going from one file to the next, look again.

    Looking at a lock can keep a writer from getting it. With `spare_new` files that were made just now are left alone.
    """
    handles = 0
    settled = True
    for lane in lanes:
        active = lane.files[-1]
        try:
            active.hold()
            if active.handle is None:
                continue
            status = os.fstat(active.handle.fileno())
            recent = time.time() - status.st_ctime < _JUST_NOW_S
            if spare_new and recent and not status.st_size:
                return False
            active.running = is_locked(active.handle.fileno())
            if not active.running:
                settled = settled and not (recent and active.name.stamp)  # the next file is not there yet
                active.release()
                active.size = None
                continue
            # The lock is looked at before the size is: what a writer adds after its lock is gone must not be missed.
            active.size = os.fstat(active.handle.fileno()).st_size
            for file in lane.files[:-1]:
                if handles < _HANDLES:
                    file.hold()
                    handles += 1
        except FileNotFoundError:
            return False
    return settled


def _release(lanes: list[Lane]) -> None:
    for lane in lanes:
        for file in lane.files:
            file.release()
