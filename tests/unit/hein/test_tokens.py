"""Counting tokens: nothing is cut or padded, and the encoder is not loaded."""

import subprocess
import sys

import pytest

from contracts.errors import SettingsError
from hein.tokens import token_counter


def test_long_texts_are_counted_whole():
    count = token_counter("")
    assert count("") == 0
    assert count("one two three") == 3
    assert count("word " * 1_000) == 1_000


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(SettingsError, match=r"no tokenizer\.json"):
        token_counter(str(tmp_path))


def test_counting_imports_neither_numpy_nor_a_runtime():
    code = "import sys; from hein.tokens import token_counter; token_counter('')('x'); print({'numpy', 'onnxruntime', 'torch'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
