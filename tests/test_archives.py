"""Archives made by hostile hands: nothing lands outside, nothing is half-extracted, no bomb goes off."""

import gzip
import io
import random
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from fairmend.archives import extract
from fairmend.errors import ArtifactError

FILES = {"pack/a.txt": b"alpha", "pack/deep/b.txt": b"beta", "other/c.txt": b"gamma"}


def make_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return path


def make_tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture(params=[make_zip, make_tar], ids=["zip", "tar"])
def make(request: pytest.FixtureRequest):
    return request.param


def below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_only_the_named_members_come_out(make, tmp_path: Path) -> None:
    archive = make(tmp_path / "archive", FILES)
    placed = extract(archive, ["pack/a.txt"], tmp_path / "out")
    assert placed == {"pack/a.txt": tmp_path / "out" / "pack" / "a.txt"}
    assert below(tmp_path / "out") == {"pack/a.txt": b"alpha"}


def test_a_prefix_stands_for_everything_below_it(make, tmp_path: Path) -> None:
    extract(make(tmp_path / "archive", FILES), ["pack/"], tmp_path / "out")
    assert below(tmp_path / "out") == {"pack/a.txt": b"alpha", "pack/deep/b.txt": b"beta"}


def test_a_missing_member_is_named_and_nothing_is_written(make, tmp_path: Path) -> None:
    archive = make(tmp_path / "archive", FILES)
    with pytest.raises(ArtifactError, match=r"does not hold nowhere\.txt"):
        extract(archive, ["pack/a.txt", "nowhere.txt"], tmp_path / "out")
    assert below(tmp_path / "out") == {}


@pytest.mark.parametrize(
    "name",
    ["../evil.txt", "/tmp/evil.txt", "pack/../../evil.txt", "pack/./evil.txt", "..\\evil.txt", "C:evil.txt"],
)
def test_no_path_leads_out(make, tmp_path: Path, name: str) -> None:
    archive = make(tmp_path / "archive", {name: b"evil"})
    with pytest.raises(ArtifactError, match="outside"):
        extract(archive, [name], tmp_path / "inner" / "out")
    assert "evil" not in " ".join(below(tmp_path))


def test_a_prefix_does_not_smuggle_a_path_out(make, tmp_path: Path) -> None:
    archive = make(tmp_path / "archive", {"pack/a.txt": b"alpha", "pack/../../evil.txt": b"evil"})
    with pytest.raises(ArtifactError, match="outside"):
        extract(archive, ["pack/"], tmp_path / "inner" / "out")
    assert below(tmp_path / "inner") == {}


def test_a_link_that_stands_in_the_folder_does_not_lead_out(make, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "pack").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArtifactError, match="outside"):
        extract(make(tmp_path / "archive", FILES), ["pack/a.txt"], tmp_path / "out")
    assert below(tmp_path / "elsewhere") == {}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "archive.tar", "w") as archive:
        member = tarfile.TarInfo("pack/a.txt")
        member.type, member.linkname = kind, "/etc/passwd"
        archive.addfile(member)
    with pytest.raises(ArtifactError, match="link or a device"):
        extract(tmp_path / "archive.tar", ["pack/a.txt"], tmp_path / "out")


def test_links_in_a_zip_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        member = zipfile.ZipInfo("pack/a.txt")
        member.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(member, "/etc/passwd")
    with pytest.raises(ArtifactError, match="link or a device"):
        extract(tmp_path / "archive.zip", ["pack/a.txt"], tmp_path / "out")


def test_a_bomb_is_stopped_by_the_bytes_that_come_out(make, tmp_path: Path) -> None:
    archive = make(tmp_path / "archive", {"bomb": bytes(5_000_000)})
    assert archive.stat().st_size < 20_000
    with pytest.raises(ArtifactError, match="unpacks to more than the 1,000,000 bytes"):
        extract(archive, ["bomb"], tmp_path / "out", member_limit=1_000_000)
    assert below(tmp_path / "out") == {}


def test_many_small_members_share_the_total_limit(make, tmp_path: Path) -> None:
    archive = make(tmp_path / "archive", {f"pack/{number}": bytes(1000) for number in range(20)})
    with pytest.raises(ArtifactError, match="unpacks to more"):
        extract(archive, ["pack/"], tmp_path / "out", total_limit=10_500)


@pytest.mark.parametrize("name", ["skipped", "a.txt"])
def test_a_bomb_in_a_tar_that_is_only_read_over_is_stopped_too(tmp_path: Path, name: str) -> None:
    archive = make_tar(tmp_path / "archive", {"a.txt": b"alpha", f"{name}2": bytes(5_000_000), "z.txt": b"omega"})
    with pytest.raises(ArtifactError, match="unpacks to more than"):
        extract(archive, ["a.txt", "z.txt"], tmp_path / "out", total_limit=1_000_000)
    assert below(tmp_path / "out") == {}


def test_a_bomb_behind_the_last_member_is_stopped_too(tmp_path: Path) -> None:
    archive = make_tar(tmp_path / "archive", {"a.txt": b"alpha"})
    archive.write_bytes(archive.read_bytes() + gzip.compress(bytes(5_000_000)))
    with pytest.raises(ArtifactError, match="unpacks to more than"):
        extract(archive, ["a.txt"], tmp_path / "out", total_limit=1_000_000)


def test_a_bomb_in_a_header_is_stopped_before_it_is_read(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "archive.tar.gz", "w:gz", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("a.txt")
        member.pax_headers = {"comment": "x" * 20_000_000}
        archive.addfile(member)
    with pytest.raises(ArtifactError, match="header of more than"):
        extract(tmp_path / "archive.tar.gz", ["a.txt"], tmp_path / "out")


@pytest.mark.parametrize("packing", ["gz", "bz2", "xz", ""])
def test_tars_are_read_however_they_are_packed(tmp_path: Path, packing: str) -> None:
    content = b"alpha" * 200_000
    with tarfile.open(tmp_path / "archive", f"w:{packing}") as archive:  # type: ignore[call-overload]
        for name in ("skipped", "a.txt"):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    assert extract(tmp_path / "archive", ["a.txt"], tmp_path / "out")["a.txt"].read_bytes() == content


def test_a_header_that_lies_about_the_size_does_not_help_a_bomb(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "archive.zip", {"bomb": bytes(1_000_000)})
    raw = archive.read_bytes()
    archive.write_bytes(raw.replace((1_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    with pytest.raises(ArtifactError):
        extract(archive, ["bomb"], tmp_path / "out", member_limit=1000)
    assert below(tmp_path / "out") == {}


def test_two_members_of_one_name_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr("a.txt", "one")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.txt", "two")
    with pytest.raises(ArtifactError, match="twice"):
        extract(tmp_path / "archive.zip", ["a.txt"], tmp_path / "out")


def test_a_damaged_archive_is_refused(make, tmp_path: Path) -> None:
    archive = make(tmp_path / "archive", {"a": random.Random(0).randbytes(100_000)})
    raw = bytearray(archive.read_bytes())
    middle = len(raw) // 2
    raw[middle : middle + 20] = bytes(20)
    archive.write_bytes(raw)
    with pytest.raises(ArtifactError, match="fetch it again"):
        extract(archive, ["a"], tmp_path / "out")
    assert below(tmp_path / "out") == {}


@pytest.mark.parametrize("content", [b"", b"neither of them", b"PK\x03\x04 cut short"])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "archive").write_bytes(content)
    with pytest.raises(ArtifactError, match="neither a zip"):
        extract(tmp_path / "archive", ["a"], tmp_path / "out")


def test_an_absent_archive_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="does not exist"):
        extract(tmp_path / "absent.zip", ["a"], tmp_path / "out")
