"""Unpacking archives: good, damaged and malicious ones."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.data.download import extract
from harness.errors import RequestError

Pack = Callable[[Path, dict[str, bytes]], Path]


def packed_tar(folder: Path, members: dict[str, bytes]) -> Path:
    path = folder / "some.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def packed_zip(folder: Path, members: dict[str, bytes]) -> Path:
    path = folder / "some.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


both = pytest.mark.parametrize("pack", [packed_tar, packed_zip])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


def unpack(archive: Path, folder: Path) -> bool:
    return extract(archive, folder, lambda line: None)


def everything(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@both
def test_an_archive_is_unpacked_once(pack: Pack, tmp_path: Path, folder: Path) -> None:
    members = {"set/a.txt": b"a", "set/deep/b.txt": b"b", "c.txt": b"c"}
    archive = pack(tmp_path, members)
    assert unpack(archive, folder)
    assert everything(folder) == members
    assert not unpack(archive, folder)


@both
def test_existing_files_are_kept(pack: Pack, tmp_path: Path, folder: Path) -> None:
    (folder / "c.txt").write_text("precious")
    assert unpack(pack(tmp_path, {"set/a.txt": b"a", "c.txt": b"c"}), folder)
    assert everything(folder) == {"set/a.txt": b"a", "c.txt": b"precious"}


@both
@pytest.mark.parametrize("name", ["../evil", "set/../../evil", "/tmp/evil", "..\\evil", "C:\\evil"])
def test_a_member_that_leaves_the_folder_is_refused(
    pack: Pack, name: str, tmp_path: Path, folder: Path
) -> None:
    archive = pack(tmp_path, {"good": b"", name: b""})
    with pytest.raises(RequestError, match=r"some\.\S+ is refused: its member .*evil' leaves the"):
        unpack(archive, folder)
    assert everything(tmp_path).keys() == {archive.name}


@both
def test_a_removed_file_is_unpacked_again(pack: Pack, tmp_path: Path, folder: Path) -> None:
    members = {"set/a.txt": b"a", "set/b.txt": b"b"}
    archive = pack(tmp_path, members)
    unpack(archive, folder)
    (folder / "set" / "a.txt").unlink()
    (folder / "set" / "b.txt").write_bytes(b"changed")
    assert unpack(archive, folder)
    assert everything(folder) == {"set/a.txt": b"a", "set/b.txt": b"changed"}


def test_a_link_in_a_tar_file_is_refused(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "some.tar"
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("door")
        member.type, member.linkname = tarfile.SYMTYPE, "data"
        archive.addfile(member)
    with pytest.raises(RequestError, match="its member 'door' is not a plain file"):
        unpack(path, folder)
    assert not list(folder.iterdir())


def test_a_link_in_a_zip_file_is_refused(tmp_path: Path, folder: Path) -> None:
    member = zipfile.ZipInfo("door")
    member.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as archive:
        archive.writestr(member, "data")
    with pytest.raises(RequestError, match="its member 'door' is not a plain file"):
        unpack(tmp_path / "some.zip", folder)


@both
def test_a_truncated_archive_leaves_nothing(pack: Pack, tmp_path: Path, folder: Path) -> None:
    content = bytes(range(256)) * 64
    archive = pack(tmp_path, {"set/a": content, "set/b": content[::-1]})
    archive.write_bytes(archive.read_bytes()[:-200])
    with pytest.raises(RequestError, match=r"cannot unpack .*some\.") as refusal:
        unpack(archive, folder)
    assert "\n" not in str(refusal.value)
    assert not list(folder.iterdir())


def test_progress_is_reported(tmp_path: Path, folder: Path) -> None:
    lines: list[str] = []
    extract(packed_zip(tmp_path, {str(n): b"" for n in range(250)}), folder, lines.append)
    assert lines == ["some.zip: 100 files unpacked", "some.zip: 200 files unpacked"]


def test_an_encrypted_archive_is_refused(tmp_path: Path, folder: Path) -> None:
    archive = packed_zip(tmp_path, {"a.txt": b"a"})
    content = bytearray(archive.read_bytes())
    for signature, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.index(signature) + flags] |= 1
    archive.write_bytes(content)
    with pytest.raises(RequestError, match=rf"cannot unpack {archive}: .*is encrypted"):
        unpack(archive, folder)


@both
def test_an_archive_that_is_a_folder_is_refused(pack: Pack, tmp_path: Path, folder: Path) -> None:
    archive = pack(tmp_path, {"a.txt": b"a"})
    archive.unlink()
    archive.mkdir()
    with pytest.raises(RequestError, match=rf"cannot unpack {archive}: .*Is a directory"):
        unpack(archive, folder)


@both
def test_an_unpacked_archive_is_not_unpacked_again_on_a_read_only_disk(
    pack: Pack, tmp_path: Path, small_disk: Path, remount: Callable[[Path, str], None]
) -> None:
    archive = pack(tmp_path, {"a.txt": b"a"})
    remount(small_disk, "ro")
    with pytest.raises(RequestError, match=rf"cannot unpack {archive}: .*Read-only file system"):
        unpack(archive, small_disk)
    remount(small_disk, "rw")
    unpack(archive, small_disk)
    remount(small_disk, "ro")
    assert not unpack(archive, small_disk)
