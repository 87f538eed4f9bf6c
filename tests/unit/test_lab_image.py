"""The cache of the lab's images: found again, rebuilt by its recipe, never taken from a user."""

from __future__ import annotations

import pytest

from tests.lab import image


@pytest.fixture
def built(tmp_path, monkeypatch):
    """The folders that were built, in order; no Debian is made."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(image.os, "geteuid", lambda: 0)
    folders = []

    def build(_cache, made, _runtime):
        made.folder.mkdir()
        made.disk.touch()
        folders.append(made.folder)

    monkeypatch.setattr(image, "_build", build)
    return folders


def of(tmp_path, content: bytes) -> image.Image:
    package = tmp_path / "runtime.deb"
    package.write_bytes(content)
    return image.image(package)


def test_an_image_is_found_again_and_another_recipe_makes_another(built, tmp_path, monkeypatch):
    first = of(tmp_path, b"one")
    assert of(tmp_path, b"one") == first and built == [first.folder]
    monkeypatch.setattr(image, "PACKAGES", (*image.PACKAGES, "more"))
    assert of(tmp_path, b"one") != first and len(built) == 2


def test_older_ones_go_but_for_those_in_use(built, tmp_path):
    first = of(tmp_path, b"one")
    second = of(tmp_path, b"two")
    assert first.folder.exists() and second.folder.exists()
    first.hold.close()
    third = of(tmp_path, b"three")
    assert not first.folder.exists() and second.folder.exists() and third.folder.exists()


def test_without_room_nothing_is_built_and_a_sentence_says_so(built, tmp_path, monkeypatch):
    monkeypatch.setattr(image, "BUILD_ROOM", 1 << 60)
    with pytest.raises(image.LabUnavailable, match=r"GB free, and the lab needs .*make room there"):
        of(tmp_path, b"one")
    assert built == []


def test_an_image_that_tells_of_this_host_is_none(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_INDEX_URL", "https://index.example/simple")
    monkeypatch.setattr(image.os, "geteuid", lambda: 0)
    monkeypatch.setattr(image, "BUILD_ROOM", 0)
    monkeypatch.setattr(image, "CACHED_ROOM", 0)

    def bootstrap(_work, root, _key, _runtime):
        (root / "etc").mkdir(parents=True)
        (root / "etc" / "pip.conf").write_text("index-url = https://index.example/simple\n")

    monkeypatch.setattr(image, "_bootstrap", bootstrap)
    with pytest.raises(RuntimeError, match=r"host index\.example in etc/pip\.conf"):
        of(tmp_path, b"one")
    assert not list((tmp_path / "cache").rglob("base.qcow2"))
