"""Where journals are."""

import logging
from pathlib import Path

import pytest

from spanledger.api.errors import ConfigurationError, JournalError
from spanledger.api.settings import Origin
from spanledger.ledger.journal import open_journal
from spanledger.ledger.journal_place import locate, passing

MOUNTS = """\
22 1 0:21 / / rw,relatime - overlay overlay rw,lowerdir=/a
23 22 0:22 / /proc rw - proc proc rw
24 22 8:1 / /data rw,relatime shared:1 - ext4 /dev/sda1 rw
25 22 0:30 / /tmp/with\\040space rw - tmpfs tmpfs rw
"""


@pytest.mark.parametrize(
    "url",
    ["journal.db", "/var/journal.db", "sqlite:///", "sqlite://journal.db", "postgres://x/y", ""],
)
def test_other_urls_are_refused_with_the_remedy(url):
    with pytest.raises(ConfigurationError, match=r"app\.toml: journal: .*sqlite:///journal\.db"):
        locate(url, Origin("app.toml", "journal"))


def test_three_slashes_are_relative_and_four_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert locate("sqlite:///a.db").path == tmp_path / "a.db"
    assert locate("sqlite:////b/a.db").path == Path("/b/a.db")
    assert locate(locate("sqlite:///a.db").url) == locate("sqlite:///a.db")
    assert locate("memory://").path is None


def test_a_path_that_was_meant_to_be_absolute_is_not_made_below_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match="sqlite:////var/lib/none/journal.db"):
        locate("sqlite:///var/lib/none/journal.db")


def test_the_default_is_the_state_directory_and_it_is_private(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    journal = open_journal(None, service="shop")
    file = tmp_path / "state" / "spanledger" / "journal.db"
    assert journal.url == f"sqlite:///{file}"
    assert file.exists()
    assert file.parent.stat().st_mode & 0o777 == 0o700
    journal.close()


@pytest.mark.parametrize("answer", [RuntimeError("no home"), "~/.local/state/spanledger"])
def test_without_a_home_it_says_what_to_set(answer, monkeypatch):
    def user_state_dir(*_, **__):
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr("platformdirs.user_state_dir", user_state_dir)
    with pytest.raises(JournalError, match="SPANLEDGER_JOURNAL="):
        locate(None)


def test_a_disk_that_does_not_last_is_recognised(tmp_path):
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS)
    assert "container" in (passing(Path("/home/app/journal.db"), mounts) or "")
    assert "memory" in (passing(Path("/tmp/with space/journal.db"), mounts) or "")
    assert passing(Path("/data/deep/journal.db"), mounts) is None
    assert passing(Path("/data/deep/journal.db"), tmp_path / "none") is None


def test_a_default_place_that_does_not_last_is_said_once(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS)
    monkeypatch.setattr("spanledger.ledger.journal_place._MOUNTS", mounts)
    monkeypatch.setattr("spanledger.ledger.journal_place.passing.__defaults__", (mounts,))
    with caplog.at_level(logging.WARNING, "spanledger"):
        for _ in range(2):
            open_journal(None, service="shop").close()
    assert [r.message for r in caplog.records if "mount a volume" in r.message] != []
    assert len(caplog.records) == 1


@pytest.mark.parametrize("place", ["/proc/spanledger/journal.db", "/proc/journal.db", "FILE/j.db"])
def test_a_place_that_cannot_be_written_says_what_to_do(place, tmp_path):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(JournalError, match="SPANLEDGER_JOURNAL=sqlite") as caught:
        open_journal(f"sqlite:///{place.replace('FILE', str(file))}", service="shop")
    assert "journal" in str(caught.value)
