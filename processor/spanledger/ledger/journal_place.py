"""Where a journal is: its URL, the default place, and a warning where that does not last."""

import errno
from pathlib import Path
from typing import Final, NamedTuple

from spanledger.api.errors import JournalError
from spanledger.api.settings import Origin

IN_CODE: Final = Origin("code", "journal")
"""Where the URL of a journal was said that no setting names."""

_MOUNTS: Final = Path("/proc/self/mountinfo")
_PASSING: Final = {
    "overlay": "the container's own disk, which goes with the container",
    "aufs": "the container's own disk, which goes with the container",
    "tmpfs": "a file system in memory, which is empty after a restart",
    "ramfs": "a file system in memory, which is empty after a restart",
}


class Place(NamedTuple):
    """Where a journal is.

    path: absolute; None for a journal in memory.
    is_default: nobody named the place.
    """

    path: Path | None
    is_default: bool = False

    @property
    def url(self) -> str:
        """The URL that names this place."""
        return "memory://" if self.path is None else f"sqlite:///{self.path}"


def locate(url: str | None, origin: Origin = IN_CODE) -> Place:
    """The place that `url` names; None for the user's state directory.

    It makes nothing. After `sqlite:///` comes a path, relative to the current directory; an
    absolute one starts with a fourth slash, as in other libraries.

    origin: where the URL was said. Raises ConfigurationError where it is none of a journal, and
    JournalError where this user has no such directory.
    """
    if url is None:
        return Place(_default_path(), is_default=True)
    if url == "memory://":
        return Place(None)
    text = url.removeprefix("sqlite:///")
    if text == url or not text:
        raise origin.error(
            f"{url!r} is not a journal's URL",
            "Write sqlite:///journal.db (relative), sqlite:////var/lib/spanledger/journal.db "
            "(absolute, four slashes) or memory://.",
        )
    path = Path(text)
    if not path.is_absolute() and not path.parent.exists() and Path("/", path.parts[0]).is_dir():
        raise origin.error(
            f"{url!r} is a relative path, and {path.parent} is not in {Path.cwd()}",
            f"For the absolute path write four slashes: sqlite:////{text}.",
        )
    return Place(Path.cwd() / path)


def _default_path() -> Path:
    import platformdirs  # noqa: PLC0415 - only who names no place pays for it

    try:
        directory = Path(platformdirs.user_state_dir("spanledger", appauthor=False))
    except RuntimeError:
        directory = Path()
    if not directory.is_absolute():  # platformdirs before 4.14 left the "~" as it is
        raise JournalError(
            "journal: this user has no home directory to keep it in. "
            "Set SPANLEDGER_JOURNAL=sqlite:////path/journal.db (or memory://)"
        )
    return directory / "journal.db"


def prepare(place: Place) -> None:
    """Make the directory of `place`. Raises JournalError."""
    if place.path is None:
        return
    try:
        # 0o700 is for the default place only: the books name users, and nobody else asked to see
        # them.
        place.path.parent.mkdir(
            mode=0o700 if place.is_default else 0o777, parents=True, exist_ok=True
        )
    except OSError as error:
        raise failure(place.path, error) from error


def passing(path: Path, mounts: Path = _MOUNTS) -> str | None:
    """What kind of disk `path` is on where that disk does not outlast the container or a restart;
    else None.
    """
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    real = path.resolve()
    best, kind = "", ""
    for line in lines:
        fields, _, rest = line.partition(" - ")
        point = fields.split(" ")[4].replace("\\040", " ")
        if len(point) >= len(best) and real.is_relative_to(point):
            best, kind = point, rest.split(" ")[0]
    return _PASSING.get(kind)


def notice(place: Place) -> str | None:
    """The word to say about a default place that does not last; else None."""
    if place.path is None or not place.is_default:
        return None
    kind = passing(place.path)
    return kind and (
        f"the journal {place.path} is on {kind}. To keep the books, mount a volume and set "
        "SPANLEDGER_JOURNAL=sqlite:////that/volume/journal.db"
    )


class TemporaryJournalError(JournalError):
    """The journal cannot be used now, and may be usable in a while.

    Attributes: busy (another process holds it; False: there is no room).
    """

    def __init__(self, message: str, *, busy: bool) -> None:
        super().__init__(message)
        self.busy = busy


def failure(path: Path | None, error: Exception) -> JournalError:
    """The JournalError that says what is wrong with the journal at `path`, and what to do."""
    text = str(error)
    where = f"journal {path}" if path else "journal in memory"
    if "disk is full" in text or getattr(error, "errno", 0) in (errno.ENOSPC, errno.EDQUOT):
        return TemporaryJournalError(f"{where}: {text}. Free some room on its disk", busy=False)
    if "locked" in text:
        remedy = "Another process holds it: `fuser FILE` names it"
        return TemporaryJournalError(f"{where}: {text}. {remedy}", busy=True)
    if "malformed" in text or "not a database" in text:
        remedy = "The file is damaged: `sqlite3 FILE .recover` saves what can be read"
    else:
        remedy = (
            "Make the file and its directory writable for this user, or set "
            "SPANLEDGER_JOURNAL=sqlite:////path/journal.db (or memory://)"
        )
    return JournalError(f"{where}: {text}. {remedy}")
