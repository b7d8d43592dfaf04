"""Text of others: whatever comes in, one harmless line of bounded length goes out, and what people write in earnest stays."""

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from extractor.plain_text import MAX_BYTES_PER_CHAR, plain_text
from fakes.hostile_texts import ATTACKS

LIMIT = 2_000
HIDDEN = "\u00ad\u034f\u115f\u1160\u17b4\u180b\u200b\u200d\u202e\u2060\u2067\u2800\u3164\ufe0f\ufeff\uffa0\U000e0041\U000e0101"
PIECES = ["<", ">", "/", "|", "&lt;", "&amp;", "amp;", "subject", "[INST]", "[IN", "ST]", "im_end", "<b>", "a"]
PIECES += ["<!--", "-->", "<script>", "</script>"]
PIECES += [" ", "\n", "\x00", "\x1b[", "\u0301", "\u0316", "\u2039", "\u203a", "\uff1c", "\u6e2f", "\ufdfa", *HIDDEN]
TOKENS = re.compile(
    r"\[/?(inst|sep|cls|mask|tool_calls)\]|[\u2039\u27e8\u3008\u00ab\[{] ?/? ?subject ?[\u203a\u27e9\u3009\u00bb\]}]|\u2039\|[\w ]{1,40}\|\u203a",
    re.IGNORECASE,
)


def is_harmless(clean):
    """Whether a text could neither close a delimiter nor open a special token, nor look as if, nor hide anything."""
    return clean.isprintable() and not set(clean) & {*"<>\n", *HIDDEN} and not TOKENS.search(clean)


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_an_attack_leaves_one_harmless_line_that_stays_as_it_is(attack):
    clean = plain_text(attack.text, LIMIT)
    assert is_harmless(clean), clean[:200]
    assert len(clean) <= LIMIT
    assert len(clean.encode()) <= MAX_BYTES_PER_CHAR * LIMIT
    assert plain_text(clean, LIMIT) == clean


@given(st.lists(st.sampled_from(PIECES), max_size=60).map("".join), st.integers(1, 60))
def test_no_mixture_of_pieces_makes_a_token(raw, limit):
    clean = plain_text(raw, limit)
    assert is_harmless(clean), clean
    assert len(clean) <= limit
    assert len(clean.encode()) <= MAX_BYTES_PER_CHAR * limit


@pytest.mark.parametrize(
    "text",
    [
        "Some Like It Hot (1959) [Director's Cut]",
        "M\u00e4dchen in Uniform \u2013 \u00abein Klassiker\u00bb, \u2039neu\u203a gesehen",
        "\u4f60\u597d\uff0c\u300a\u6e2f\u53e3\u300b\u3008\u4e0a\u3009",
        "\u0e01\u0e33\u0e25\u0e31\u0e07 \u0e17\u0e35\u0e48",
        "\u05d1\u05bc\u05b0\u05e8\u05b5\u05d0\u05e9\u05c1\u05b4\u05d9\u05ea",
        "\u0939\u093f\u0928\u094d\u0926\u0940 \u0915\u094d\u0937\u0924\u094d\u0930\u093f\u092f",
        "\u0f56\u0f62\u0f92\u0fb1\u0f74\u0f51",
        "AT&T, R&D, 5 \u2264 6, C++ [audio] | a/b, 'quoted' \"text\" {x} \U0001f600",
        "if a[i] | b[j] and/or c",
    ],
)
def test_what_people_write_stays(text):
    assert plain_text(text, 200) == unicodedata.normalize("NFKC", text)


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("Tom &amp;amp; Jerry &amp;lt;b&amp;gt;live&amp;lt;/b&amp;gt;", "Tom & Jerry live"),
        ("&amp;" * 1 + "amp;" * 9 + "lt;/subject&gt;", "amp;amp;amp;amp;amp;amp;lt;/subject\u203a"),
        ("\u27e8/subject\u27e9 x [/b] {{/each}}", "x"),
        ("\u2039/[INST]subject\u203a x", "x"),
        ("<\uff5cbegin\u2581of\u2581sentence\uff5c> x", "x"),
        ("<!-- <!-- -->x<script>y", "\u2039!-- x y"),
        ("\x1b[8mred\x1b[0m \x1b]0;title\x07end", "red end"),
        ("a" + "\u0301\u0316" * 50 + "b", "\u00e1\u0316\u0316\u0301b"),
    ],
)
def test_what_hides_in_layers_is_taken_off(raw, clean):
    assert plain_text(raw, 100) == clean


@pytest.mark.parametrize(
    ("text", "n_chars"), [("x", 100), ("\u0436", 100), ("\u6e2f", 66), ("\U0001f600", 50), ("\U00012000", 50)]
)
def test_a_limit_bounds_tokens_in_every_script(text, n_chars):
    clean = plain_text(text * 1_000, 100)
    assert clean == text * n_chars
    bytes_only = Tokenizer(
        models.BPE(vocab={char: n for n, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, merges=[])
    )
    bytes_only.pre_tokenizer = pre_tokenizers.ByteLevel(
        add_prefix_space=False
    )  # the worst byte-level tokenizer: it merges nothing
    assert len(bytes_only.encode(clean).ids) <= 100 * MAX_BYTES_PER_CHAR


@pytest.mark.timeout(60)  # takes about a second; a pattern or a normalisation in quadratic time took minutes
def test_time_grows_with_the_length_of_an_attack_not_with_its_square():
    for attack in ATTACKS:
        if attack.kind in {"flood", "combining"}:
            plain_text(attack.text[:9_000] * 20, 50_000)
