"""The ways to ask the server for text, as functions from one wish to one outcome, so that they can be compared.

A wish is a dict with the field names of docs/api.md; `prompt` is a text, a list of token ids or a list of chat
messages. `logprobs` is the number of alternatives. A field that a transport's client cannot send makes it refuse the
wish before anything is sent, with ClientRefuses.
"""

import dataclasses
import json

import grpc

GRPC_NAMES = {"include_stop_str_in_output": "include_stop_text", "timeout": "timeout_seconds", "guided_regex": "regex"}


class ClientRefuses(Exception):
    """The transport's own client does not send such a value."""


@dataclasses.dataclass
class Choice:
    text: str = ""
    finish: str | None = None
    # (text of the token, log-probability or None, {text: log-probability} or None), as doubles
    logprobs: list = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Outcome:
    """What a call came to: its choices with `usage`, or an error."""
    choices: list[Choice]
    usage: tuple[int, int] | None = None  # tokens of the prompt, of the answers
    code: str = ""                        # of the error: a row of docs/api.md
    message: str = ""


def is_chat(prompt) -> bool:
    return isinstance(prompt, list) and bool(prompt) and isinstance(prompt[0], dict)


def messages_of(wish: dict) -> list[dict]:
    return wish["prompt"] if is_chat(wish["prompt"]) else [{"role": "user", "content": wish["prompt"]}]


def empty_choices(wish: dict) -> list[Choice]:
    num_choices = wish.get("n", 1)
    return [Choice() for _ in range(num_choices if isinstance(num_choices, int) else 1)]


# --- HTTP --------------------------------------------------------------------------------------------------------

def http_body(wish: dict, chat: bool) -> dict:
    body = dict(wish)
    if chat:
        del body["prompt"]
        body["messages"] = messages_of(wish)
        if "logprobs" in wish:
            body.update(logprobs=True, top_logprobs=wish["logprobs"])
    return body


def with_chosen(token: str, logprob: float | None, top: list) -> dict | None:
    """The alternatives by text, the chosen token among them; of two with one text the more likely one."""
    if logprob is None:
        return None
    by_text: dict = {}
    for text, value in [*top, (token, logprob)]:
        by_text.setdefault(text, value)
    return by_text


def http_logprobs(logprobs: dict | None) -> list:
    if not logprobs:
        return []
    if "content" in logprobs:
        return [(entry["token"], entry["logprob"],
                 with_chosen(entry["token"], entry["logprob"],
                             [(top["token"], top["logprob"]) for top in entry["top_logprobs"]]))
                for entry in logprobs["content"]]
    return list(zip(logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"]))


def http_error(error: dict, choices: list[Choice]) -> Outcome:
    assert set(error) == {"message", "type", "param", "code"}, error
    return Outcome(choices, code=error["code"], message=error["message"])


def http_usage(usage: dict) -> tuple[int, int]:
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    return usage["prompt_tokens"], usage["completion_tokens"]


def http_whole(server, path: str, body: dict) -> Outcome:
    with server.client() as client:
        response = client.post(path, json=body)
    answer = response.json()
    if response.status_code != 200:
        outcome = http_error(answer["error"], [])
        assert response.status_code == STATUS_OF_CODE[outcome.code], answer
        return outcome
    choices = [Choice(choice["text"] if "text" in choice else choice["message"]["content"], choice["finish_reason"],
                      http_logprobs(choice["logprobs"])) for choice in answer["choices"]]
    assert [choice["index"] for choice in answer["choices"]] == list(range(len(choices)))
    return Outcome(choices, http_usage(answer["usage"]))


def http_stream(server, path: str, body: dict) -> Outcome:
    choices = empty_choices(body)
    body = {**body, "stream": True, "stream_options": {"include_usage": True}}
    usage = None
    with server.client() as client, client.stream("POST", path, json=body) as response:
        if response.status_code != 200:
            outcome = http_error(json.loads(response.read())["error"], [])
            assert response.status_code == STATUS_OF_CODE[outcome.code]
            return outcome
        for line in response.iter_lines():
            if not line.startswith("data: {"):
                continue
            event = json.loads(line[len("data: "):])
            if "error" in event:
                return http_error(event["error"], choices)
            usage = http_usage(event["usage"]) if event["usage"] else usage
            for part in event["choices"]:
                choice = choices[part["index"]]
                assert choice.finish is None, "a chunk after the end of its choice"
                choice.text += part["text"] if "text" in part else part["delta"].get("content", "")
                choice.logprobs += http_logprobs(part["logprobs"])
                choice.finish = part["finish_reason"]
    return Outcome(choices, usage)


# --- gRPC --------------------------------------------------------------------------------------------------------

def grpc_request(pb, wish: dict, chat: bool):
    fields = {GRPC_NAMES.get(name, name): value for name, value in wish.items()}
    prompt = fields.pop("prompt")
    try:
        if chat:
            fields["chat"] = pb.ChatMessages(messages=[pb.ChatMessage(**message) for message in messages_of(wish)])
        elif isinstance(prompt, list):
            fields["token_ids"] = pb.TokenIds(ids=prompt)
        else:
            fields["text"] = prompt
        if isinstance(fields.get("stop"), str):
            fields["stop"] = [fields["stop"]]
        if "seed" in fields and -2**63 <= fields["seed"] < 0:
            fields["seed"] += 2**64  # the same 64 bits
        if "logit_bias" in fields:
            fields["logit_bias"] = {int(token): bias for token, bias in fields["logit_bias"].items()}
        if "guided_choice" in fields:
            fields["choices"] = pb.Choices(texts=fields.pop("guided_choice"))
        if "guided_json" in fields:
            fields["json_schema"] = json.dumps(fields.pop("guided_json"))
        if fields.get("response_format", {}).get("type") == "json_object":
            del fields["response_format"]
            fields["json_object"] = True
        return pb.GenerateRequest(**fields)
    except (AttributeError, TypeError, ValueError) as error:
        raise ClientRefuses(str(error)) from error


def token_text(token: bytes) -> str:
    try:
        return token.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token)


def grpc_call(server, api, wish: dict, chat: bool) -> Outcome:
    pb, pb_grpc = api
    request = grpc_request(pb, wish, chat)
    choices = empty_choices(wish)
    token_ids: list[list[int]] = [[] for _ in choices]
    usage = None
    finishes = {pb.FINISH_REASON_STOP: "stop", pb.FINISH_REASON_LENGTH: "length"}
    with grpc.insecure_channel(server.grpc) as channel:
        try:
            for response in pb_grpc.GenerationServiceStub(channel).Generate(request):
                assert usage is None, "a message after the last one"
                choice = choices[response.choice_index]
                choice.text += response.text
                choice.finish = finishes.get(response.finish_reason, choice.finish)
                token_ids[response.choice_index] += response.token_ids
                for token, entry in zip(response.token_ids, response.logprobs):
                    assert token == entry.token_id
                    text = token_text(entry.token)
                    logprob = entry.logprob if entry.HasField("logprob") else None
                    top = with_chosen(text, logprob, [(token_text(top.token), top.logprob) for top in entry.top])
                    choice.logprobs.append((text, logprob, top))
                if response.HasField("usage"):
                    usage = (response.usage.prompt_tokens, response.usage.completion_tokens)
        except grpc.RpcError as error:
            code = error.code().name
            return Outcome(choices if any(token_ids) else [], code=code, message=error.details())
    return Outcome(choices, usage)


# --- all of them -------------------------------------------------------------------------------------------------

# The rows of docs/api.md, "Errors": code over HTTP, its status, status over gRPC.
ERROR_ROWS = [
    ("invalid_type", 400, "INVALID_ARGUMENT"),
    ("invalid_value", 400, "INVALID_ARGUMENT"),
    ("missing_required_parameter", 400, "INVALID_ARGUMENT"),
    ("context_length_exceeded", 400, "INVALID_ARGUMENT"),
    ("model_not_found", 404, "NOT_FOUND"),
    ("request_too_large", 413, "RESOURCE_EXHAUSTED"),
    ("overloaded", 429, "RESOURCE_EXHAUSTED"),
    ("unavailable", 503, "UNAVAILABLE"),
    ("timeout", 504, "DEADLINE_EXCEEDED"),
]
STATUS_OF_CODE = {code: status for code, status, _ in ERROR_ROWS}
GRPC_OF_CODE = {code: name for code, _, name in ERROR_ROWS}

TRANSPORTS = {
    "completions": lambda server, api, wish: http_whole(server, "/v1/completions", http_body(wish, chat=False)),
    "completions, streamed": lambda server, api, wish: http_stream(server, "/v1/completions",
                                                                   http_body(wish, chat=False)),
    "gRPC": lambda server, api, wish: grpc_call(server, api, wish, chat=False),
    "chat": lambda server, api, wish: http_whole(server, "/v1/chat/completions", http_body(wish, chat=True)),
    "chat, streamed": lambda server, api, wish: http_stream(server, "/v1/chat/completions", http_body(wish, chat=True)),
    "gRPC chat": lambda server, api, wish: grpc_call(server, api, wish, chat=True),
}
