"""Downloads from a local server, with the failures of real ones."""

from __future__ import annotations

import hashlib
import io
import re
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from harness.command_line import main
from harness.data.download import CHUNK, download
from harness.errors import RequestError, RunFailed
from harness.output import SECONDS_BETWEEN_LOG_LINES, Progress

CONTENT = bytes(range(256)) * (4 * CHUNK // 256)
MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves one file, with the failures that a test asks for."""

    content = CONTENT
    sends = len(CONTENT)
    """Bytes after which the connection breaks."""
    knows_ranges = True
    says_length = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []
        """The range of each request."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/file.txt"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, wanted = self.server, self.headers["Range"]
        server.asked.append(wanted)
        if self.path != "/file.txt":
            return self.send_error(404)
        start = 0
        if wanted and server.knows_ranges:
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])  # type: ignore[index]
            if start >= len(server.content):
                return self.send_error(416)
        self.send_response(206 if start else 200)
        if server.says_length:
            self.send_header("Content-Length", str(len(server.content) - start))
        self.end_headers()
        self.wfile.write(server.content[start:][: server.sends])
        return None

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The destination of the file, in a folder that does not exist yet."""
    return tmp_path / "data" / "file.txt"


def fetch(server: Server, path: Path, md5: str = MD5) -> bool:
    return download(server.url, path, md5, lambda line: None)


def part(path: Path) -> Path:
    return path.with_name("file.txt.part")


def test_a_file_is_downloaded_once(server: Server, path: Path) -> None:
    assert fetch(server, path)
    assert path.read_bytes() == CONTENT
    assert [file.name for file in path.parent.iterdir()] == ["file.txt"]
    assert not fetch(server, path)
    assert server.asked == [None]


def test_progress_is_reported(server: Server, path: Path) -> None:
    lines: list[str] = []
    download(server.url, path, MD5, lines.append)
    assert lines[0] == "file.txt: 65.5 kB of 262 kB"
    assert lines[-1] == "file.txt: 262 kB of 262 kB"


def test_a_broken_download_is_resumed(server: Server, path: Path) -> None:
    server.sends = CHUNK + 1000
    with pytest.raises(RunFailed, match=r"lost after 66\.5 kB of .*; the same command resumes"):
        fetch(server, path)
    assert not path.exists()
    assert part(path).read_bytes() == CONTENT[: CHUNK + 1000]
    server.sends = len(CONTENT)
    assert fetch(server, path)
    assert path.read_bytes() == CONTENT
    assert server.asked == [None, f"bytes={CHUNK + 1000}-"]


def test_a_server_without_ranges_sends_the_whole_file_again(server: Server, path: Path) -> None:
    path.parent.mkdir()
    part(path).write_bytes(b"what an earlier attempt left")
    server.knows_ranges = False
    assert fetch(server, path)
    assert path.read_bytes() == CONTENT


def test_a_complete_partial_file_is_only_checked(server: Server, path: Path) -> None:
    path.parent.mkdir()
    part(path).write_bytes(CONTENT)
    assert fetch(server, path)
    assert path.read_bytes() == CONTENT


def test_a_response_without_a_length_is_accepted(server: Server, path: Path) -> None:
    server.says_length = False
    assert fetch(server, path)
    assert path.read_bytes() == CONTENT


def test_a_file_with_another_checksum_is_removed(server: Server, path: Path) -> None:
    server.content = b"Please log in."
    with pytest.raises(RunFailed, match=f"is not the official file: its MD5 is not {MD5}"):
        fetch(server, path)
    assert list(path.parent.iterdir()) == []


def test_another_file_at_the_destination_is_kept(server: Server, path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"precious")
    with pytest.raises(RequestError, match="exists, but it is not the official file"):
        fetch(server, path)
    assert path.read_bytes() == b"precious"
    assert server.asked == []


def test_a_file_that_the_server_lacks_is_an_error(server: Server, path: Path) -> None:
    with pytest.raises(RunFailed, match=r"cannot download .*elsewhere: 404 Not Found"):
        download(server.url.replace("file.txt", "elsewhere"), path, MD5, lambda line: None)


def test_an_unreachable_server_is_an_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as gone:
        url = gone.url
    with pytest.raises(RunFailed, match=f"cannot reach {url}: .*Connection refused"):
        download(url, path, MD5, lambda line: None)
    assert not path.parent.exists()


def test_a_silent_server_is_an_error(
    server: Server, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.data.download.TIMEOUT", 0.1)
    silence = threading.Event()
    monkeypatch.setattr(Handler, "do_GET", lambda handler: silence.wait(5))
    with pytest.raises(RunFailed, match=r"cannot reach .*timed out"):
        fetch(server, path)
    silence.set()


def test_a_folder_at_the_destination_is_kept(server: Server, path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(RequestError, match="exists, but it is not the official file"):
        fetch(server, path)
    assert path.is_dir()


def test_a_destination_that_cannot_be_written_is_an_error(server: Server, path: Path) -> None:
    path.parent.write_text("a file, not a folder")
    with pytest.raises(RequestError, match="cannot write"):
        fetch(server, path)


class TestCommand:
    def plugin(self, folder: Path, downloads: str) -> str:
        file = folder / "mine.py"
        file.write_text(
            "@task('mine', title='Mine', metric='m', goal='max', data=':describe', settings={}, "
            f"profiles={{}}, downloads={downloads})\nclass Mine: ...\n"
        )
        return str(file)

    def test_it_downloads_the_files_that_the_task_declares(
        self, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        plugin = self.plugin(tmp_path, f"{{'file.txt': ('{server.url}', '{MD5}')}}")
        words = ["data", "fetch", "mine", "--data", str(tmp_path), "--plugin", plugin]
        file = tmp_path / "mine" / "file.txt"
        assert main(words) == 0
        assert file.read_bytes() == CONTENT
        assert main(words) == 0
        assert capsys.readouterr().out == f"{file} was downloaded\n{file} exists already\n"

    def test_it_unpacks_archives_on_request(self, server: Server, tmp_path: Path) -> None:
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("inside.txt", "content")
        server.content, server.sends = packed.getvalue(), len(packed.getvalue())
        md5 = hashlib.md5(server.content).hexdigest()
        plugin = self.plugin(tmp_path, f"{{'some.zip': ('{server.url}', '{md5}', 'unpack')}}")
        assert main(["data", "fetch", "mine", "--data", str(tmp_path), "--plugin", plugin]) == 0
        assert (tmp_path / "mine" / "inside.txt").read_text() == "content"

    def test_a_failure_is_one_line(
        self, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        server.sends = 10
        plugin = self.plugin(tmp_path, f"{{'file.txt': ('{server.url}', '{MD5}')}}")
        assert main(["data", "fetch", "mine", "--data", str(tmp_path), "--plugin", plugin]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("failed: the connection was lost after 10 B of http://127.0.0.1:")

    def test_a_task_without_downloads(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["data", "fetch", "digits"]) == 0
        assert capsys.readouterr().out == "nothing to download for digits\n"

    def test_the_files_of_ptb_have_their_addresses(self) -> None:
        from harness.registry import Registry
        from tasks.ptb.settings import FILES

        downloads = Registry().find("task", "ptb").arguments["downloads"]
        assert downloads is FILES
        assert all(url.endswith(f"/{name}") for name, (url, _) in downloads.items())


class TestProgress:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    def test_a_terminal_shows_one_changing_line(self) -> None:
        terminal = self.Terminal()
        progress = Progress(terminal)
        progress.update("1 of 2")
        progress.update("2 of 2")
        progress.clear()
        assert terminal.getvalue() == "\r\x1b[K1 of 2\r\x1b[K2 of 2\r\x1b[K"

    def test_a_log_gets_a_line_now_and_then(self, monkeypatch: pytest.MonkeyPatch) -> None:
        log, clock = io.StringIO(), [0.0]
        monkeypatch.setattr("harness.output.time.monotonic", lambda: clock[0])
        progress = Progress(log)
        for second in range(3 * int(SECONDS_BETWEEN_LOG_LINES)):
            clock[0] = float(second)
            progress.update(f"second {second}")
        progress.clear()
        assert log.getvalue() == "second 10\nsecond 20\n"
