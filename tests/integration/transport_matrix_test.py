"""Every transport, one outcome: the same wishes over HTTP completions, HTTP chat and gRPC, streamed and whole.

Valid wishes come to the same texts, tokens, log-probabilities (as doubles), finish reasons and usage; refused ones to
the same row of docs/api.md's table of errors and the same message.
"""

import concurrent.futures
import json
import re

import grpc
import pytest
import transports
from server_process import ROOT, ServerProcess
from transports import TRANSPORTS, ClientRefuses

TEXT = "The old king looked at the sea and said:"
TOKENS = [1, 338, 901, 77, 1204]
BASE = {"prompt": TEXT, "max_tokens": 6, "seed": 5}
MESSAGES = [{"role": "system", "content": "Once there was a king."}, {"role": "user", "content": "He had a dog."},
            {"role": "assistant", "content": "It barked."}, {"role": "developer", "content": " At night "}]

# What to add to BASE, by a name; None takes a field away.
VALID = {
    "plain": {},
    "by token ids": {"prompt": TOKENS},
    "of one token": {"prompt": [1]},
    "chat of every role": {"prompt": MESSAGES},
    "text of many bytes": {"prompt": "Ünï – 😀 naïve 漢字"},
    "the served model": {"model": "nsa-story-27m"},
    "max_tokens 1": {"max_tokens": 1},
    "temperature 0": {"temperature": 0},
    "temperature 2": {"temperature": 2},
    "temperature at the edge of greedy": {"temperature": 1e-5},
    "temperature 0.7": {"temperature": 0.7},
    "top_p 1": {"top_p": 1, "min_p": 0},
    "top_p 0.3": {"top_p": 0.3, "min_p": 0},
    "top_p next to nothing": {"top_p": 1e-300},
    "top_k -1": {"top_k": -1},
    "top_k 0": {"top_k": 0},
    "top_k 3": {"top_k": 3, "temperature": 2},
    "top_k of the vocabulary and more": {"top_k": 2**31 - 1},
    "min_p 0": {"min_p": 0, "temperature": 1.5},
    "min_p 1": {"min_p": 1},
    "presence_penalty -2": {"presence_penalty": -2},
    "presence_penalty 2": {"presence_penalty": 2},
    "frequency_penalty -2": {"frequency_penalty": -2},
    "frequency_penalty 2": {"frequency_penalty": 2},
    "repetition_penalty 0.01": {"repetition_penalty": 0.01},
    "repetition_penalty 100": {"repetition_penalty": 100},
    "all penalties": {"presence_penalty": 0.3, "frequency_penalty": 0.7, "repetition_penalty": 1.3, "max_tokens": 12},
    "logit_bias": {"logit_bias": {"320": 100, "5": -100}},
    "logit_bias of 1024 tokens": {"logit_bias": {str(token): -0.1 for token in range(1024)}},
    "priority -20": {"priority": -20},
    "priority 20": {"priority": 20},
    "min_tokens 0": {"min_tokens": 0},
    "min_tokens of all": {"min_tokens": 6, "stop_token_ids": list(range(200, 600))},
    "echo": {"echo": True},
    "echo with logprobs": {"echo": True, "logprobs": 2},
    "echo of tokens with logprobs and choices": {"prompt": TOKENS, "echo": True, "logprobs": 0, "n": 2},
    "n 3": {"n": 3, "temperature": 1},
    "n 128": {"n": 128, "max_tokens": 1},
    "seed 0": {"seed": 0, "temperature": 1},
    "seed -1": {"seed": -1, "temperature": 1},
    "seed -2^63": {"seed": -2**63, "temperature": 1},
    "seed 2^64-1": {"seed": 2**64 - 1, "temperature": 1},
    "stop": {"stop": "e", "max_tokens": 20},
    "stop that ends nothing": {"stop": ["\u0001"], "max_tokens": 8},
    "stop, kept": {"stop": [" t", "an"], "include_stop_str_in_output": True, "max_tokens": 20},
    "64 stops of up to 1024 bytes": {"stop": ["q" * (961 + i) for i in range(64)]},
    "stop_token_ids": {"stop_token_ids": list(range(1000, 2024)), "max_tokens": 20, "temperature": 1},
    "stop_token_ids, kept": {"stop_token_ids": list(range(1000, 2024)), "include_stop_str_in_output": True,
                             "max_tokens": 20, "temperature": 1},
    "ignore_eos": {"ignore_eos": True, "logit_bias": {"2": 100}},
    "end of sequence": {"logit_bias": {"2": 100}},
    "logprobs 0": {"logprobs": 0},
    "logprobs 5": {"logprobs": 5, "temperature": 1},
    "logprobs with stop": {"logprobs": 1, "stop": "e", "max_tokens": 20},
    "logprobs of choices": {"logprobs": 3, "n": 2},
    "timeout": {"timeout": 86400},
    "cache_salt": {"cache_salt": "s" * 256},
    "any JSON object": {"response_format": {"type": "json_object"}, "max_tokens": 12},
    "guided_json": {"guided_json": {"type": "array", "items": {"enum": ["a", 1, None]}, "maxItems": 3},
                    "max_tokens": 30, "logprobs": 2},
    "guided_regex": {"guided_regex": "[A-Z][a-z]{2,9}, [0-9]{1,3}\\.", "max_tokens": 30},
    "guided_choice": {"guided_choice": ["yes", "no", "ja – nein"], "max_tokens": 30},
    "guided_choice with all rules": {"guided_choice": ["yes", "no"], "max_tokens": 9, "min_tokens": 5, "ignore_eos": True,
                                     "repetition_penalty": 1.5, "logit_bias": {"320": 9}},
}

# Refused by the service: what to add to BASE, and the code over HTTP.
INVALID = {
    "empty prompt": ({"prompt": ""}, "invalid_value"),
    "no token": ({"prompt": []}, "invalid_value"),
    "token -1": ({"prompt": [1, -1]}, "invalid_value"),
    "token beyond the vocabulary": ({"prompt": [1, 10**6]}, "invalid_value"),
    "unknown role": ({"prompt": [{"role": "wizard", "content": "x"}]}, "invalid_value"),
    "unknown model": ({"model": "other"}, "model_not_found"),
    "max_tokens 0": ({"max_tokens": 0}, "invalid_value"),
    "max_tokens beyond the context": ({"max_tokens": 10**7}, "context_length_exceeded"),
    "prompt beyond the context": ({"prompt": "a b" * 20000}, "context_length_exceeded"),
    "temperature -0.1": ({"temperature": -0.1}, "invalid_value"),
    "temperature just above 2": ({"temperature": 2.00000001}, "invalid_value"),
    "top_p 0": ({"top_p": 0}, "invalid_value"),
    "top_p just above 1": ({"top_p": 1.00000001}, "invalid_value"),
    "top_k -2": ({"top_k": -2}, "invalid_value"),
    "min_p -0.1": ({"min_p": -0.1}, "invalid_value"),
    "min_p 1.5": ({"min_p": 1.5}, "invalid_value"),
    "presence_penalty -2.1": ({"presence_penalty": -2.1}, "invalid_value"),
    "presence_penalty 2.1": ({"presence_penalty": 2.1}, "invalid_value"),
    "frequency_penalty -2.1": ({"frequency_penalty": -2.1}, "invalid_value"),
    "frequency_penalty 2.1": ({"frequency_penalty": 2.1}, "invalid_value"),
    "repetition_penalty 0.009": ({"repetition_penalty": 0.009}, "invalid_value"),
    "repetition_penalty 101": ({"repetition_penalty": 101}, "invalid_value"),
    "logit_bias of no token": ({"logit_bias": {"-1": 1}}, "invalid_value"),
    "logit_bias beyond the vocabulary": ({"logit_bias": {"1000000": 1}}, "invalid_value"),
    "logit_bias 100.5": ({"logit_bias": {"5": 100.5}}, "invalid_value"),
    "logit_bias of 1025 tokens": ({"logit_bias": {str(token): 1 for token in range(1025)}}, "invalid_value"),
    "priority -21": ({"priority": -21}, "invalid_value"),
    "priority 21": ({"priority": 21}, "invalid_value"),
    "min_tokens -1": ({"min_tokens": -1}, "invalid_value"),
    "min_tokens above max_tokens": ({"min_tokens": 7}, "invalid_value"),
    "n 0": ({"n": 0}, "invalid_value"),
    "n 129": ({"n": 129}, "invalid_value"),
    "65 stops": ({"stop": ["x"] * 65}, "invalid_value"),
    "empty stop": ({"stop": ["a", ""]}, "invalid_value"),
    "stop of 1025 bytes": ({"stop": "x" * 1025}, "invalid_value"),
    "1025 stop_token_ids": ({"stop_token_ids": [5] * 1025}, "invalid_value"),
    "stop_token_ids -1": ({"stop_token_ids": [-1]}, "invalid_value"),
    "stop_token_ids beyond the vocabulary": ({"stop_token_ids": [5, 10**6]}, "invalid_value"),
    "logprobs -1": ({"logprobs": -1}, "invalid_value"),
    "logprobs 21": ({"logprobs": 21}, "invalid_value"),
    "timeout 0": ({"timeout": 0}, "invalid_value"),
    "timeout 86400.5": ({"timeout": 86400.5}, "invalid_value"),
    "timeout that passes at once": ({"timeout": 1e-6}, "timeout"),
    "timeout that passes in mid-answer": ({"timeout": 0.2, "max_tokens": 8000, "ignore_eos": True}, "timeout"),
    "cache_salt of 257 bytes": ({"cache_salt": "s" * 257}, "invalid_value"),
    "guided_json that is not supported": ({"guided_json": {"not": {}}}, "invalid_value"),
    "guided_regex that does not parse": ({"guided_regex": "(a"}, "invalid_value"),
    "guided_regex of 128 KiB and a byte": ({"guided_regex": "a" * 131073}, "invalid_value"),
    "guided_choice of nothing": ({"guided_choice": []}, "invalid_value"),
    "guided_choice of 1025": ({"guided_choice": ["a"] * 1025}, "invalid_value"),
}

# The field names differ, and the messages name them; or the limits do (completions have at most 5 logprobs).
OWN_MESSAGES = ("logprobs -1", "logprobs 21", "guided_json", "guided_regex", "guided_choice")

# Wrong types over JSON; a client of gRPC cannot even build such a message.
WRONG_TYPES = [
    {"prompt": 5}, {"prompt": [1, "a"]}, {"max_tokens": "many"}, {"max_tokens": 1.5}, {"temperature": "hot"},
    {"top_p": [1]}, {"top_k": 0.5}, {"min_p": "0"}, {"presence_penalty": "x"}, {"frequency_penalty": {}},
    {"repetition_penalty": "1"}, {"logit_bias": {"5": "much"}}, {"logit_bias": [5]}, {"priority": "high"},
    {"min_tokens": "few"}, {"n": "two"}, {"n": 2.5}, {"seed": "x"}, {"seed": 2**64}, {"stop": 7}, {"stop": [7]},
    {"stop_token_ids": "2"}, {"stop_token_ids": ["2"]}, {"ignore_eos": "yes"}, {"echo": "yes"},
    {"include_stop_str_in_output": "no"}, {"logprobs": "all"}, {"timeout": "soon"}, {"cache_salt": 5},
    {"guided_regex": 5}, {"guided_choice": [5]}, {"model": 5},
]


def wish_of(changes: dict) -> dict:
    return {name: value for name, value in {**BASE, **changes}.items() if value is not None}


def transports_for(wish: dict) -> list[str]:
    prompt = wish["prompt"]
    has_text = not transports.is_chat(prompt)
    has_chat = transports.is_chat(prompt) or (isinstance(prompt, str) and prompt != "" and "echo" not in wish)
    return [name for name in TRANSPORTS if (has_chat if "chat" in name else has_text)]


def outcomes_of(server, api, wish: dict) -> dict[str, transports.Outcome]:
    """By transport, asked all at once, but for large wishes."""
    names = transports_for(wish)
    with concurrent.futures.ThreadPoolExecutor(1 if wish.get("n", 1) > 8 else len(names)) as pool:
        return dict(zip(names, pool.map(lambda name: TRANSPORTS[name](server, api, wish), names)))


@pytest.mark.parametrize("case", VALID)
def test_the_outcome_is_the_same(server, api, case):
    wish = wish_of(VALID[case])
    outcomes = outcomes_of(server, api, wish)
    first = outcomes[next(iter(outcomes))]
    assert not first.code, first.message
    assert len(first.choices) == wish.get("n", 1) and all(choice.finish for choice in first.choices)
    assert ("logprobs" in wish) == any(choice.logprobs for choice in first.choices)
    for name, outcome in outcomes.items():
        assert outcome == first, name


@pytest.mark.parametrize("case", INVALID)
def test_the_refusal_is_the_same(server, api, case):
    changes, code = INVALID[case]
    outcomes = outcomes_of(server, api, wish_of(changes))
    messages = set()
    for name, outcome in outcomes.items():
        expected = transports.GRPC_OF_CODE[code] if name.startswith("gRPC") else code
        assert outcome.code == expected and outcome.message, (name, outcome)
        messages.add(outcome.message.replace("messages", "prompt").replace("the prompt have", "the prompt has"))
    if not case.startswith(OWN_MESSAGES):
        assert len(messages) == 1, messages


@pytest.mark.parametrize("changes", WRONG_TYPES, ids=str)
def test_a_wrong_type_goes_nowhere(server, api, changes):
    wish = wish_of(changes)
    for name in ("completions", "completions, streamed", "chat", "chat, streamed"):
        if "chat" in name and "prompt" in changes:
            continue
        outcome = TRANSPORTS[name](server, api, wish)
        assert outcome.code == ("invalid_value" if changes == {"seed": 2**64} else "invalid_type"), (name, outcome)
    with pytest.raises(ClientRefuses):
        TRANSPORTS["gRPC"](server, api, wish)


def test_without_max_tokens_completions_end_at_16_and_chat_at_the_end(server, api):
    outcomes = outcomes_of(server, api, wish_of({"max_tokens": None, "guided_regex": "[a-z ]{100,}[.]"}))
    for name, outcome in outcomes.items():
        if "chat" in name:
            assert outcome == outcomes["chat"] and outcome.choices[0].finish == "stop", name
        else:
            assert outcome == outcomes["completions"] and outcome.choices[0].finish == "length", name
            assert outcome.usage[1] == 16


def test_a_chat_without_messages_is_refused(server, api):
    with server.client() as client:
        error = client.post("/v1/chat/completions", json={"messages": []}).json()["error"]
    with grpc.insecure_channel(server.grpc) as channel, pytest.raises(grpc.RpcError) as refused:
        list(api[1].GenerationServiceStub(channel).Generate(api[0].GenerateRequest(chat=api[0].ChatMessages())))
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert error["message"] == refused.value.details() == "messages is empty" and error["code"] == "invalid_value"


def test_text_that_is_not_utf8_is_refused(server, api):
    """A generated client cannot send it, other clients can."""
    with server.client() as client:
        answer = client.post("/v1/completions", content=b'{"prompt":"\xff"}', headers={"content-type": "application/json"})
    assert answer.status_code == 400 and answer.json()["error"]["code"] == "invalid_json"
    with grpc.insecure_channel(server.grpc) as channel:
        generate = channel.unary_stream("/nsa.v1.GenerationService/Generate")
        with pytest.raises(grpc.RpcError) as error:
            list(generate(b"\x12\x01\xff"))  # field 2, text
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT and "UTF-8" in error.value.details()


def test_overload_and_size_are_refused_alike(api):
    server = ServerProcess("--max-concurrent-requests=1", "--max-body-bytes=65536")
    try:
        for name, outcome in outcomes_of(server, api, wish_of({"n": 2})).items():
            assert outcome.code in ("invalid_value", "INVALID_ARGUMENT") and "2 choices" in outcome.message, name
        for name, outcome in outcomes_of(server, api, wish_of({"prompt": "x" * 70000})).items():
            assert outcome.code in ("request_too_large", "RESOURCE_EXHAUSTED"), (name, outcome)
        pb, pb_grpc = api
        with grpc.insecure_channel(server.grpc) as channel:
            running = pb_grpc.GenerationServiceStub(channel).Generate(
                pb.GenerateRequest(text="Once", max_tokens=8000, ignore_eos=True))
            next(running)
            messages = set()
            for name, outcome in outcomes_of(server, api, wish_of({})).items():
                assert outcome.code in ("overloaded", "RESOURCE_EXHAUSTED"), (name, outcome)
                messages.add(outcome.message)
            assert len(messages) == 1 and "1 of at most 1 requests" in messages.pop()
            running.cancel()
    finally:
        assert server.terminate() == 0


def tried_fields() -> set[str]:
    return {name for changes in [*VALID.values(), *(changes for changes, _ in INVALID.values())] for name in changes}


def test_no_field_is_forgotten(api):
    """docs/api.md has every generation field of openapi.json; those and the protocol's are in some case above."""
    schemas = json.loads((ROOT / "server" / "http" / "openapi.json").read_text())["components"]["schemas"]
    refused = re.findall(r'^    \{"(\w+)", &', (ROOT / "server/http/unsupported_fields.cc").read_text(), re.MULTILINE)
    accepted = {name for schema in ("GenerationFields", "CompletionRequest", "ChatCompletionRequest")
                for name in schemas[schema]["properties"]} - set(refused)
    table = (ROOT / "docs" / "api.md").read_text().split("## Request fields")[1].split("##")[0]
    cells = re.findall(r"^\| (`[^|]*)\|", table, re.MULTILINE)
    assert {name for cell in cells for name in re.findall(r"`(\w+)", cell)} == accepted - {"prompt"}
    http_only = {"best_of", "stream", "stream_options", "max_completion_tokens", "messages", "top_logprobs", "user"}
    elsewhere = {"nsa_trace"}  # trace_test.py compares it over both transports
    assert accepted - http_only - elsewhere <= tried_fields()
    names = {field.name for field in api[0].GenerateRequest.DESCRIPTOR.fields} - elsewhere
    own_names = {"text": "prompt", "token_ids": "prompt", "chat": "prompt", "timeout_seconds": "timeout",
                 "include_stop_text": "include_stop_str_in_output", "json_object": "response_format",
                 "json_schema": "guided_json", "regex": "guided_regex", "choices": "guided_choice"}
    assert {own_names.get(name, name) for name in names} <= tried_fields()
