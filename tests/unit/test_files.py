"""Reading files: only regular files with content, without blocking."""

import os
from pathlib import Path

import pytest

from exporter import files
from exporter.errors import SettingsError
from exporter.settings import Settings, read_token


def test_only_regular_files_with_content_are_read(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_bytes(b"x\n")
    assert files.read(file) == b"x\n"
    settings = Settings(api={"token_file": str(file)})
    for replace, problem in ((Path.touch, "empty"), (os.mkfifo, "regular"), (Path.mkdir, "a dir")):
        file.unlink()
        replace(file)
        with pytest.raises(SettingsError, match=problem):
            read_token(settings)
