from types import SimpleNamespace

from contracts.records import ModelManifest
from contracts.topics import MODELS
from streams import manifests


class Tail:
    def __init__(self, _settings, topics):
        assert topics == [MODELS]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def to_end(self):
        return iter([SimpleNamespace(record=manifest(1)), SimpleNamespace(record=None), SimpleNamespace(record=manifest(2))])


def manifest(version):
    return ModelManifest(
        version=version, step=0, state="ready", backbone="din", weights="", sha256="", collection="", encoder="", d_text=1, d_aug=1,
        created_ms=0,
    )  # fmt: skip


def test_a_version_that_was_removed_from_the_topic_is_no_state(monkeypatch):
    monkeypatch.setattr(manifests, "Tail", Tail)
    assert [one.version for one in manifests.manifests(None)] == [1, 2]
