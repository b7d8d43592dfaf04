"""The encoder against its reference, and what it does with odd texts, odd folders and two processes at once."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from contracts.errors import SettingsError
from contracts.ports import TextEncoder
from contracts.settings import Encoder
from hein.encoder import load_encoder
from hein.export import MODEL_FILE, exported
from hein.folder import read_folder
from hein.processor import Processor, read_processor

TEXTS = [
    "A slow drama about memory.\ngenre: drama\ntone: melancholic",
    "",
    "Überraschung 日本 🎬 'quotes' \x00 and\ttabs",
    "word " * 600,  # longer than the model reads
    "short",
    "A slow drama about memory.\ngenre: drama\ntone: melancholic",
    *[f"{'many different words in a row ' * n} number {n}" for n in range(1, 20)],
]

# Builds a random DistilBERT folder (no token types, CLS pooling, no Normalize) and encodes the texts with it and with the default
# model. One process for both: importing sentence_transformers takes up to 11 s, and warns.
REFERENCE = """
import json, sys
from pathlib import Path
import numpy as np
from sentence_transformers import SentenceTransformer
from transformers import DistilBertConfig, DistilBertModel
default, tiny, out = map(Path, sys.argv[1:])
config = DistilBertConfig(vocab_size=30522, max_position_embeddings=66, dim=8, n_heads=2, n_layers=1, hidden_dim=16)
DistilBertModel(config).save_pretrained(tiny)
for name in ("tokenizer.json", "tokenizer_config.json"):
    (tiny / name).write_text((default / name).read_text())
kinds = {"Transformer": "", "Pooling": "1_Pooling"}
modules = [{"idx": n, "name": str(n), "path": kinds[kind], "type": "sentence_transformers.models." + kind} for n, kind in enumerate(kinds)]
(tiny / "modules.json").write_text(json.dumps(modules))
(tiny / "1_Pooling").mkdir()
pooling = {"word_embedding_dimension": 8, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
(tiny / "1_Pooling/config.json").write_text(json.dumps(pooling))
(tiny / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 64}))
texts = json.load(sys.stdin)
for folder, file in ((default, "default.npy"), (tiny, "tiny.npy")):
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    np.save(out / file, model.encode(texts, batch_size=4, normalize_embeddings=True))
"""


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("onnx")


@pytest.fixture(scope="session")
def encoder(cache: Path) -> TextEncoder:
    return load_encoder(Encoder(batch=4), cache)


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with default.npy, tiny.npy and the model `tiny`, all by sentence-transformers."""
    out = tmp_path_factory.mktemp("reference")
    (out / "tiny").mkdir()
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", REFERENCE, str(read_folder("").path), str(out / "tiny"), str(out)]
    done = subprocess.run(command, input=json.dumps(TEXTS), text=True, capture_output=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    return out


def test_it_equals_sentence_transformers(encoder: TextEncoder, reference: Path) -> None:
    got = encoder.encode(TEXTS)
    assert got.dtype == np.float32
    assert np.abs(got - np.load(reference / "default.npy")).max() < 1e-4
    assert encoder.dim == 384
    assert encoder.name == "all-MiniLM-L6-v2/onnx-fp32"


def test_vectors_have_unit_length_and_do_not_depend_on_the_batch(encoder: TextEncoder) -> None:
    together = encoder.encode(TEXTS)
    assert np.abs(np.linalg.norm(together, axis=1) - 1).max() < 1e-5
    alone = np.concatenate([encoder.encode([text]) for text in TEXTS])
    assert np.abs(together - alone).max() < 1e-5
    assert together[0].tobytes() == together[5].tobytes()
    assert encoder.encode([]).shape == (0, 384)


def test_the_name_says_a_cut_below_what_the_model_takes_because_it_changes_vectors(encoder: TextEncoder, cache: Path) -> None:
    short, long = (load_encoder(Encoder(max_tokens=n), cache) for n in (64, 512))
    assert short.name == "all-MiniLM-L6-v2/onnx-fp32-t64"
    assert long.name == encoder.name == "all-MiniLM-L6-v2/onnx-fp32"
    texts = ["".join(f"word {n} " for n in range(300))]
    assert np.abs(long.encode(texts) - encoder.encode(texts)).max() < 1e-6
    assert np.abs(short.encode(texts) - encoder.encode(texts)).max() > 1e-2


def test_equal_texts_are_encoded_once(encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[int] = []
    run = encoder._run
    monkeypatch.setattr(encoder, "_run", lambda tokens: ran.append(len(tokens)) or run(tokens))
    encoder.encode(["a", "b", "a"] * 10)
    assert ran == [2]


def test_int8_gives_a_text_one_vector_whatever_else_is_encoded_with_it(encoder: TextEncoder, cache: Path) -> None:
    int8 = load_encoder(Encoder(precision="int8", batch=16), cache)
    together = int8.encode(TEXTS)
    assert np.abs(together - np.concatenate([int8.encode([text]) for text in TEXTS])).max() < 1e-5
    assert (together * encoder.encode(TEXTS)).sum(axis=1).mean() > 0.98
    assert int8.name.startswith("all-MiniLM-L6-v2/onnx-int8")


def test_a_second_start_uses_the_export_and_never_imports_torch(encoder: TextEncoder, cache: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from contracts.settings import Encoder; from hein.encoder import load_encoder\n"
        "import hein.export; hein.export._in_own_process = None\n"
        "assert load_encoder(Encoder(), Path(sys.argv[1])).encode(['a']).shape == (1, 384)\n"
        "assert not {'torch', 'transformers', 'pymilvus'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code, str(cache)], check=True)
    assert not list(cache.glob(".export-*"))


def test_the_choice_and_the_processor_are_logged(encoder: TextEncoder, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        load_encoder(Encoder(), cache)
    assert "encoder all-MiniLM-L6-v2/onnx-fp32, d_text 384, 1 threads, on" in caplog.text


def test_another_folder_equals_sentence_transformers_too(reference: Path, cache: Path) -> None:
    made = load_encoder(Encoder(model=str(reference / "tiny"), max_tokens=256), cache)
    assert made.name.startswith("tiny@")
    assert made.name.endswith("/onnx-fp32")  # the setting is above what the model takes
    assert np.abs(made.encode(TEXTS) - np.load(reference / "tiny.npy")).max() < 1e-4


def test_an_export_that_another_process_made_meanwhile_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = read_folder("")
    final = tmp_path / f"{folder.fingerprint}-fp32"

    def slow(_: Path, out: Path, __: str) -> None:
        for place, words in ((final, "theirs"), (out, "ours")):
            place.mkdir()
            (place / MODEL_FILE).write_text(words)

    monkeypatch.setattr("hein.export._in_own_process", slow)
    assert exported(folder, tmp_path, "fp32").read_text() == "theirs"
    assert [path.name for path in tmp_path.iterdir()] == [final.name]


def test_what_a_killed_export_left_is_swept_away_and_a_live_one_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for left in (".export-old", ".export-live"):
        (tmp_path / left).mkdir()
    os.utime(tmp_path / ".export-old", (0, 0))
    monkeypatch.setattr("hein.export._in_own_process", lambda _source, out, _variant: (out.mkdir(), (out / MODEL_FILE).touch()))
    exported(read_folder(""), tmp_path, "fp32")
    assert [path.name for path in tmp_path.glob(".export-*")] == [".export-live"]


def test_an_export_that_fails_leaves_nothing_and_says_why(tmp_path: Path) -> None:
    fp32 = tmp_path / f"{read_folder('').fingerprint}-fp32"
    fp32.mkdir()
    (fp32 / MODEL_FILE).write_bytes(b"not a graph")
    with pytest.raises(SettingsError, match=r"(?s)cannot be exported \(.*Error.*run `python -m hein\.export"):
        exported(read_folder(""), tmp_path, "int8")
    assert [path.name for path in tmp_path.iterdir()] == [fp32.name]


def broken(path: Path, modules: object = None, pooling: object = None, *, weights: bool = True) -> Path:
    path.mkdir()
    (path / "config.json").write_text('{"model_type": "bert", "hidden_size": 8}')
    (path / "tokenizer.json").write_text("{}")
    if weights:
        (path / "model.safetensors").write_bytes(b"w")
    if modules is not None:
        (path / "modules.json").write_text(json.dumps(modules))
    if pooling is not None:
        (path / "p").mkdir()
        (path / "p/config.json").write_text(json.dumps(pooling))
    return path


TRANSFORMER = {"type": "x.Transformer", "path": ""}
POOLING = {"type": "x.Pooling", "path": "p"}


@pytest.mark.parametrize(
    ("modules", "pooling", "words"),
    [
        ([TRANSFORMER, POOLING, {"type": "x.Dense", "path": "d"}], {"pooling_mode": "mean"}, "Transformer, Pooling, Dense"),
        ([TRANSFORMER, POOLING], {"pooling_mode_max_tokens": True}, "pooling max_tokens"),
        ([TRANSFORMER, POOLING], {"pooling_mode_max_tokens": True, "pooling_mode_cls_token": True}, "max_tokens.*cls_token"),
        ([TRANSFORMER, POOLING], None, "No such file"),
    ],
)
def test_an_unsupported_folder_is_a_wrong_setting_that_says_what_is_supported(
    tmp_path: Path, modules: object, pooling: object, words: str
) -> None:
    with pytest.raises(SettingsError, match=rf"(?s){words}.*Transformer, Pooling \(mean or cls\)"):
        read_folder(str(broken(tmp_path / "m", modules, pooling)))


def test_a_missing_folder_and_pickled_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no such folder"):
        read_folder(str(tmp_path / "none"))
    with pytest.raises(SettingsError, match="pickled weights are not loaded"):
        read_folder(str(broken(tmp_path / "m", weights=False)))


def test_new_style_pooling_and_a_bare_transformer_are_read(tmp_path: Path) -> None:
    assert read_folder(str(broken(tmp_path / "a", [TRANSFORMER, POOLING], {"pooling_mode": "cls"}))).pooling == "cls"
    assert read_folder(str(broken(tmp_path / "b"))).pooling == "mean"


def test_changed_weights_have_another_fingerprint(tmp_path: Path) -> None:
    before = read_folder(str(broken(tmp_path / "a")))
    (before.path / "model.safetensors").write_bytes(b"v")
    assert read_folder(str(before.path)).fingerprint != before.fingerprint


def test_processor_flags_decide_whether_int8_sums_saturate(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("model name\t: Some CPU\nflags\t\t: fpu avx2 avx512_vnni\n")
    assert read_processor(cpuinfo) == Processor(model="Some CPU", flags=("avx2", "avx512_vnni"))
    assert read_processor(cpuinfo).has_int8_dot
    assert not Processor(model="old", flags=("avx2", "avx512f")).has_int8_dot
    assert read_processor(tmp_path / "none").flags == ()
