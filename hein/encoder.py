"""The frozen text encoder at run time: ONNX Runtime and tokenizers, which start in half a second where torch takes ten.

Shapes: B texts, L tokens, d_text encoder size.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from contracts.ports import Matrix, TextEncoder
from contracts.settings import Encoder
from hein.export import exported
from hein.folder import ModelFolder, Pooling, read_folder
from hein.processor import read_processor

if TYPE_CHECKING:
    from tokenizers import Tokenizer

log = logging.getLogger(__name__)

_TINY: Final = 1e-9


def load_encoder(settings: Encoder, cache: Path) -> TextEncoder:
    """The encoder that the settings name, exported to ONNX on the first start (about ten seconds).

    Args:
        settings: Section ``encoder``.
        cache: Folder in which exports are kept, by the hash of the model.

    Raises:
        SettingsError: If the model's folder is missing or not supported.
    """
    folder = read_folder(settings.model)
    processor = read_processor()
    variant: str = settings.precision
    if variant == "int8" and not processor.has_int8_dot:
        variant = "int8-reduced"
    file = exported(folder, cache, variant)
    encoder = OnnxTextEncoder(folder, file, settings, variant)
    log.info(
        "encoder %s, d_text %d, %d threads, on %s (%s)",
        encoder.name,
        encoder.dim,
        settings.threads,
        processor.model,
        " ".join(processor.flags) or "no flags known",
    )
    return encoder


class OnnxTextEncoder:
    """`contracts.ports.TextEncoder`: transformer, pooling, unit length.

    Args:
        folder: The model.
        file: Its ONNX export.
        settings: Batch, threads and the cut.
        variant: Which export it is.
    """

    def __init__(self, folder: ModelFolder, file: Path, settings: Encoder, variant: str) -> None:
        max_tokens = min(settings.max_tokens, folder.max_tokens)
        cut = f"-t{max_tokens}" if max_tokens < folder.max_tokens else ""  # it gives long texts other vectors
        self._name = f"{folder.name}/onnx-{variant}{cut}"
        self._dim = folder.dim
        self._pooling = folder.pooling
        self._lower_case = folder.lower_case
        # int8 takes its scale from everything in a call: alone, a text has one vector, whatever else is encoded with it
        self._batch = settings.batch if variant == "fp32" else 1
        self._tokenizer, self._padding = _tokenizer(folder, max_tokens)
        self._session = _session(file, settings.threads)
        self._inputs = [node.name for node in self._session.get_inputs()]

    @property
    def name(self) -> str:
        """Model, runtime, precision, and the cut if it is below what the model takes (``-t64``)."""
        return self._name

    @property
    def dim(self) -> int:
        """d_text."""
        return self._dim

    def encode(self, texts: Sequence[str]) -> Matrix:
        """Vectors of unit length, (B, d_text) float32, in the order of ``texts``. Equal texts are encoded once."""
        row_of = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        tokens = [self._tokens(text) for text in row_of]
        vectors = np.zeros((len(tokens), self._dim), dtype=np.float32)  # (distinct, d_text)
        by_length = sorted(range(len(tokens)), key=lambda row: len(tokens[row]))
        for start in range(0, len(by_length), self._batch):
            rows = by_length[start : start + self._batch]
            vectors[rows] = self._run([tokens[row] for row in rows])
        return vectors[[row_of[text] for text in texts]]  # (B, d_text)

    def _tokens(self, text: str) -> list[int]:
        text = text.lower() if self._lower_case else text
        return list(self._tokenizer.encode(text).ids) or [self._padding]  # at least one, or there is nothing to pool

    def _run(self, tokens: list[list[int]]) -> Matrix:
        longest = max(map(len, tokens))
        ids = np.full((len(tokens), longest), self._padding, dtype=np.int64)  # (B, L)
        mask = np.zeros_like(ids)  # (B, L)
        for row, own in enumerate(tokens):
            ids[row, : len(own)] = own
            mask[row, : len(own)] = 1
        offered = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        hidden = self._session.run(None, {name: offered[name] for name in self._inputs})[0]  # (B, L, d_text)
        return _pooled(hidden, mask, self._pooling)


def _pooled(hidden: Matrix, mask: NDArray[np.int64], pooling: Pooling) -> Matrix:
    if pooling == "cls":
        vectors = hidden[:, 0]  # (B, d_text)
    else:
        weights = mask[:, :, None].astype(np.float32)  # (B, L, 1)
        vectors = (hidden * weights).sum(axis=1) / weights.sum(axis=1)  # (B, d_text)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)  # (B, 1)
    unit: Matrix = (vectors / np.maximum(norms, _TINY)).astype(np.float32)
    return unit


def _tokenizer(folder: ModelFolder, max_tokens: int) -> tuple[Tokenizer, int]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder.path / "tokenizer.json"))
    padding = (tokenizer.padding or {}).get("pad_id")
    if padding is None:
        known = (tokenizer.token_to_id(token) for token in ("[PAD]", "<pad>"))
        padding = next((token for token in known if token is not None), 0)
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    return tokenizer, int(padding)


def _session(file: Path, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
