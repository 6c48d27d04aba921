"""Files that are written whole or not at all; the network writers test what a full disk leaves."""

from fairmend.files import write_atomically


def test_writing_replaces_the_file_whole(tmp_path):
    write_atomically(tmp_path / "a", b"old")
    write_atomically(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_link_in_the_files_place_is_replaced_and_its_target_is_left(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("years of work")
    (tmp_path / "result.json").symlink_to(precious)
    write_atomically(tmp_path / "result.json", b"{}")
    assert not (tmp_path / "result.json").is_symlink()
    assert precious.read_text() == "years of work"
