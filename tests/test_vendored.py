"""Scripts of web pages from npm (`deda_fp.vendored`), with a stand-in for npm: no test asks for the net."""

import io
import tarfile

import pytest

from deda_fp import vendored


@pytest.fixture
def npm(monkeypatch):
    """Packs one package of two files; the packages that were asked for."""
    asked = []

    def run(command, cwd, **options):
        asked.append(command[-1])
        with tarfile.open(f"{cwd}/name-1.0.tgz", "w:gz") as packed:
            for name, text in (("package/dist/a.js", b"a"), ("package/b.js", b"b")):
                member = tarfile.TarInfo(name)
                member.size = len(text)
                packed.addfile(member, io.BytesIO(text))

    monkeypatch.setattr(vendored.shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(vendored.subprocess, "run", run)
    return asked


def test_files_and_folders_are_kept_and_fetched_once(npm, tmp_path):
    kept = {"dist": tmp_path / "pages/name", "b.js": tmp_path / "b.js"}
    for _ in range(2):
        vendored.fetch("name@1.0", kept)
    assert npm == ["name@1.0"]
    assert sorted(f.relative_to(tmp_path).as_posix() for f in tmp_path.rglob("*.js")) == ["b.js", "pages/name/a.js"]


def test_without_npm_one_is_told_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setattr(vendored.shutil, "which", lambda name: None)
    with pytest.raises(SystemExit, match="expected npm, for name@1.0; .*apt-get install npm"):
        vendored.fetch("name@1.0", {"b.js": tmp_path / "b.js"})
