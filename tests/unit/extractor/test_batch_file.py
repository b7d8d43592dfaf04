"""Batch files: what was written out comes back as knowledge, and bad lines are listed, not raised."""

import io
import json

import pytest

from contracts.errors import DatasetError
from contracts.records import Knowledge, KnowledgeRequest, Member
from extractor.batch_file import BadAnswer, answer_line, custom_id, read_answers, split_custom_id, write_requests
from extractor.prompts import build_prompt


def _content(news):
    return json.dumps({"factors": {factor: f"about {factor}" for factor in news.factors}, "summary": "Short."})


def test_questions_are_batch_lines(news, item_request):
    request = item_request()
    prompt = build_prompt(news, request)
    out = io.BytesIO()
    assert write_requests([(request.subject, request, prompt)], out, model="m", max_tokens=99) == 1
    line = json.loads(out.getvalue())
    assert (line["method"], line["url"]) == ("POST", "/v1/chat/completions")
    assert line["custom_id"] == f"item:n1|1000|abc|{prompt.prompt_hash}"
    assert line["body"]["messages"][1]["content"] == prompt.user
    assert line["body"]["response_format"]["json_schema"] == {"name": "knowledge", "strict": True, "schema": prompt.schema}


def test_a_custom_id_comes_back_whatever_the_subject_holds(news, item_request):
    request = item_request(ident="a|b|3|c")
    asked, prompt_hash = split_custom_id(custom_id(request, build_prompt(news, request)))
    assert (asked.subject, asked.as_of_ms, asked.source_hash) == (request.subject, 1_000, "abc")
    assert prompt_hash == build_prompt(news, request).prompt_hash


def test_answers_become_knowledge(news, item_request, tmp_path):
    request = item_request()
    file = tmp_path / "answers.jsonl"
    file.write_bytes(answer_line(request, build_prompt(news, request), model="big-model", content=_content(news)))
    [made] = read_answers(file, news)
    assert (made.subject, made.as_of_ms, made.source_hash, made.model) == ("item:n1", 1_000, "abc", "big-model")
    assert (made.tier, made.backend, made.tokens_in) == ("individual", "batch", None)
    assert made.factors["topic"] == "about topic"


def test_an_answer_about_a_cluster_is_collective_knowledge(news, tmp_path):
    members = tuple(Member(subject=f"item:n{n}", text=f"Report {n} about harbours.") for n in range(3))
    request = KnowledgeRequest(
        subject="cluster:item-3", mode="collective", reason="new_cluster", priority=1.0, as_of_ms=1_000, trigger_ms=2_000,
        source_hash="abc", members=members, common={"topic": ("harbours",)}, cluster_size=12,
    )  # fmt: skip
    prompt = build_prompt(news, request)
    assert custom_id(request, prompt) == f"cluster:item-3|1000|abc|{prompt.prompt_hash}"
    file = tmp_path / "answers.jsonl"
    file.write_bytes(answer_line(request, prompt, model="m", content=_content(news)))
    [made] = read_answers(file, news)
    assert (made.subject, made.tier, made.as_of_ms, made.source_hash) == ("cluster:item-3", "collective", 1_000, "abc")


def test_bad_lines_are_listed_and_the_rest_is_read(news, item_request, tmp_path):
    request = item_request()
    prompt = build_prompt(news, request)
    good = answer_line(request, prompt, model="m", content=_content(news))
    failed = {"custom_id": "item:n2|1|h|p", "response": None, "error": {"message": "quota"}}
    status = {"custom_id": "item:n3|1|h|p", "response": {"status_code": 500, "body": {"error": "boom"}}, "error": None}
    lines = [
        b"not json\n",
        b"\n",
        good,
        json.dumps(failed).encode() + b"\n",
        json.dumps(status).encode() + b"\n",
        answer_line(request, prompt, model="m", content="I'm sorry, but no."),
        good.replace(b"item:n1|1000", b"nobody|x"),
        b"x" * 1_500_000 + b"\n",
        b'{"custom_id": "item:n4|1|h|p", "response": {"status_code": 200, "body": {"choices": 3}}}\n',
        good.rstrip(),
    ]
    file = tmp_path / "answers.jsonl"
    file.write_bytes(b"".join(lines))
    results = list(read_answers(file, news))
    assert [type(result) for result in results] == [BadAnswer, Knowledge, *[BadAnswer] * 6, Knowledge]
    reasons = {bad.line: bad.reason for bad in results if isinstance(bad, BadAnswer)}
    words = {4: "quota", 5: "boom", 6: "refusal", 7: "custom_id", 8: "longer", 9: "wrong shape"}
    assert [line for line, word in words.items() if word not in reasons[line]] == []
    assert results[2].custom_id == "item:n2|1|h|p"
    kinds = [bad.kind for bad in results if isinstance(bad, BadAnswer)]
    line = "not a batch line"
    assert kinds == [line, "server error", "server error", "refusal", line, "line too long", "wrong shape"]


def test_a_missing_file_is_one_clear_error(news, tmp_path):
    with pytest.raises(DatasetError, match="cannot be read"):
        list(read_answers(tmp_path / "none.jsonl", news))
