"""A gRPC client with code generated from proto/, and the standard health and reflection services."""


import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

SERVICE = "nsa.v1.GenerationService"


@pytest.fixture(scope="module")
def channel(server):
    with grpc.insecure_channel(server.grpc) as open_channel:
        yield open_channel


@pytest.fixture(scope="module")
def stub(api, channel):
    return api[1].GenerationServiceStub(channel)


def collect(responses):
    responses = list(responses)
    return "".join(r.text for r in responses), [t for r in responses for t in r.token_ids], responses[-1].usage


def test_generate_equals_http(server, api, stub):
    prompt = "The king and the queen"
    text, tokens, usage = collect(stub.Generate(api[0].GenerateRequest(text=prompt, max_tokens=20, temperature=0)))
    with server.client() as http:
        answer = http.post("/v1/completions", json={"prompt": prompt, "max_tokens": 20, "temperature": 0}).json()
    assert text == answer["choices"][0]["text"]
    assert usage.prompt_tokens == answer["usage"]["prompt_tokens"]
    assert usage.completion_tokens == len(tokens) == 20
    assert 0 < usage.kv_read_bytes


def test_chat_and_token_ids(api, stub):
    chat = api[0].ChatMessages(messages=[api[0].ChatMessage(role="user", content="Hello")])
    text, tokens, _ = collect(stub.Generate(api[0].GenerateRequest(chat=chat, max_tokens=4, temperature=0)))
    assert text and len(tokens) == 4
    ids = stub.Tokenize(api[0].TokenizeRequest(text="The king and the queen")).token_ids
    by_ids = collect(stub.Generate(api[0].GenerateRequest(
        token_ids=api[0].TokenIds(ids=ids), max_tokens=8, temperature=0)))
    by_text = collect(stub.Generate(api[0].GenerateRequest(
        text="The king and the queen", max_tokens=8, temperature=0)))
    assert by_ids[:2] == by_text[:2]


def test_model_info(api, stub):
    info = stub.GetModelInfo(api[0].GetModelInfoRequest())
    assert info.attention == "nsa" and info.num_heads == 16 and info.block_tokens == 64
    assert info.max_model_tokens >= 8192 and info.version


@pytest.mark.parametrize("fields,code", [
    ({"text": "x", "temperature": 3}, grpc.StatusCode.INVALID_ARGUMENT),
    ({"text": "x", "max_tokens": 10**8}, grpc.StatusCode.INVALID_ARGUMENT),
    ({"text": "x", "n": 129}, grpc.StatusCode.INVALID_ARGUMENT),
    ({}, grpc.StatusCode.INVALID_ARGUMENT),
    ({"text": "x", "model": "other"}, grpc.StatusCode.NOT_FOUND),
])
def test_errors(api, stub, fields, code):
    with pytest.raises(grpc.RpcError) as error:
        list(stub.Generate(api[0].GenerateRequest(**fields)))
    assert error.value.code() == code and error.value.details()


def test_cancel_and_deadline_free_the_pages(server, api, stub):
    endless = api[0].GenerateRequest(text="Once", max_tokens=3000, ignore_eos=True)
    call = stub.Generate(endless)
    next(call)
    call.cancel()
    server.wait_until_idle(timeout_s=20)
    with pytest.raises(grpc.RpcError) as error:
        list(stub.Generate(endless, timeout=0.5))
    assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    server.wait_until_idle(timeout_s=20)


def test_health_and_reflection(channel):
    health = health_pb2_grpc.HealthStub(channel)
    for service in ("", SERVICE):
        answer = health.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    assert SERVICE in ProtoReflectionDescriptorDatabase(channel).get_services()
