"""Files that are written whole or not at all; the network writers test what a full disk leaves."""

from fairmend.files import write_atomically


def test_writing_replaces_the_file_whole(tmp_path):
    write_atomically(tmp_path / "a", b"old")
    write_atomically(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
