"""The one-time export of a text encoder to ONNX: the only module that runs the encoder in torch, and in a process of its own.

``python -m hein.export FOLDER OUT`` writes OUT/model.onnx and checks it against torch before it is done; with ``--variant int8``
the first argument is the folder of an fp32 export. A role never imports torch for encoding: it calls `exported`, which starts
that process when the cache has no export yet.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any, Final

from contracts.errors import SettingsError
from hein.folder import ModelFolder

log = logging.getLogger(__name__)

MODEL_FILE: Final = "model.onnx"
_TOLERANCE: Final = 1e-4  # fp32 graphs differ from torch by some 1e-6; int8 is not compared here
_OPSET: Final = 17
_EXPORT_TIMEOUT_S: Final = 900


def exported(folder: ModelFolder, cache: Path, variant: str) -> Path:
    """The ONNX file of a model folder, exported if this is the first time.

    Two processes may do this at once and a kill may fall anywhere: an export appears under its final name by one rename.

    Args:
        folder: The model.
        cache: Where exports are kept.
        variant: ``fp32``, ``int8`` or ``int8-reduced`` (7-bit weights, for processors whose int8 sums saturate).

    Raises:
        SettingsError: If the model cannot be exported; with the reason.
    """
    final = cache / f"{folder.fingerprint}-{variant}"
    if not (final / MODEL_FILE).is_file():
        cache.mkdir(parents=True, exist_ok=True)
        _sweep(cache)
        source = folder.path if variant == "fp32" else exported(folder, cache, "fp32").parent
        log.info("exporting %s to ONNX (%s), once; kept in %s", folder.name, variant, final)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".export-", ignore_cleanup_errors=True) as made:
            out = Path(made) / "out"
            _in_own_process(source, out, variant)
            try:
                out.rename(final)
            except OSError:
                if not (final / MODEL_FILE).is_file():  # else another process was faster
                    raise
    return final / MODEL_FILE


def _sweep(cache: Path) -> None:
    for left in cache.glob(".export-*"):  # by a process that was killed; a live one is younger
        if left.stat().st_mtime < time.time() - 2 * _EXPORT_TIMEOUT_S:
            shutil.rmtree(left, ignore_errors=True)


def _in_own_process(source: Path, out: Path, variant: str) -> None:
    command = [sys.executable, "-m", "hein.export", str(source), str(out), "--variant", variant]
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(  # noqa: S603 - our own module, arguments not from a shell
        command, env=env, capture_output=True, text=True, timeout=_EXPORT_TIMEOUT_S, check=False
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise SettingsError(
            f"encoder.model {source} that cannot be exported ({last})",
            wanted="a transformer that torch.onnx can trace",
            todo=f"run `python -m hein.export {source} OUT --variant {variant}` to see why, or set another encoder.model",
        )


def export(folder: Path, out: Path) -> None:
    """Write ``out/model.onnx``: token ids to hidden states, (B, L) -> (B, L, d_text).

    Raises:
        RuntimeError: If the graph does not give what torch gives.
    """
    import torch
    from transformers import AutoModel

    torch.set_num_threads(1)
    model = AutoModel.from_pretrained(
        folder, attn_implementation="eager", local_files_only=True, use_safetensors=True, dtype=torch.float32
    )
    names = ["input_ids", "attention_mask"]
    if getattr(model.config, "type_vocab_size", 0) > 0:
        names.append("token_type_ids")
    hidden = _hidden_states(model, names)
    out.mkdir(parents=True)
    file = out / MODEL_FILE
    axes = {0: "batch", 1: "tokens"}
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter(
            "ignore"
        )  # the legacy exporter warns that it is legacy, and of constants that the check below covers
        torch.onnx.export(
            hidden,
            tuple(_sample(model.config.vocab_size, 2, 7, names).values()),
            str(file),
            input_names=names,
            output_names=["hidden"],
            dynamic_axes=dict.fromkeys([*names, "hidden"], axes),
            opset_version=_OPSET,
            dynamo=False,
        )
    _check(hidden, file, model.config.vocab_size, names)


def _hidden_states(model: Any, names: list[str]) -> Any:
    import torch

    class HiddenStates(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *inputs: torch.Tensor) -> Any:
            return self.model(**dict(zip(names, inputs, strict=True))).last_hidden_state  # (B, L, d_text)

    return HiddenStates().eval()  # eval on the outermost: the exporter restores its mode, dropout included


def _sample(vocabulary: int, n_texts: int, n_tokens: int, names: list[str]) -> dict[str, Any]:
    import torch

    ids = torch.randint(3, vocabulary, (n_texts, n_tokens), generator=torch.Generator().manual_seed(n_tokens))
    mask = torch.ones_like(ids)
    mask[-1, n_tokens // 2 :] = 0
    inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
    return {name: inputs[name] for name in names}


def _check(hidden: Any, file: Path, vocabulary: int, names: list[str]) -> None:
    import onnxruntime
    import torch

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    for n_texts, n_tokens in ((1, 3), (2, 7), (3, 40)):
        inputs = _sample(vocabulary, n_texts, n_tokens, names)
        with torch.inference_mode():
            wanted = hidden(*inputs.values())
        got = torch.from_numpy(session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})[0])
        real = inputs["attention_mask"].unsqueeze(-1)
        off = float(((got - wanted) * real).abs().max())
        if not off < _TOLERANCE * max(1.0, float(wanted.abs().max())):
            raise RuntimeError(f"the ONNX graph is off by {off:.2g} from torch for {n_texts} texts of {n_tokens} tokens")


def quantise(fp32: Path, out: Path, *, reduce_range: bool) -> None:
    """Write ``out/model.onnx``: the products of an fp32 export with int8 weights, one scale per channel.

    Args:
        fp32: Folder of the fp32 export.
        out: A folder that is made.
        reduce_range: 7 bits instead of 8, for processors that sum int8 products in 16 bits and saturate.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    out.mkdir(parents=True)
    logging.getLogger().setLevel(logging.ERROR)  # it recommends a preprocessing that changes nothing here
    quantize_dynamic(
        fp32 / MODEL_FILE,
        out / MODEL_FILE,
        op_types_to_quantize=["MatMul"],
        per_channel=True,
        reduce_range=reduce_range,
        weight_type=QuantType.QInt8,
    )


def main() -> None:
    """``python -m hein.export SOURCE OUT [--variant fp32|int8|int8-reduced]``."""
    parser = argparse.ArgumentParser(description="Export a sentence-transformers folder to ONNX.")
    parser.add_argument("source", type=Path, help="the model; for int8 its fp32 export")
    parser.add_argument("out", type=Path)
    parser.add_argument("--variant", choices=["fp32", "int8", "int8-reduced"], default="fp32")
    arguments = parser.parse_args()
    if arguments.variant == "fp32":
        export(arguments.source, arguments.out)
    else:
        quantise(arguments.source, arguments.out, reduce_range=arguments.variant == "int8-reduced")


if __name__ == "__main__":
    main()
