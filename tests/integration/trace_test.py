"""nsa_trace: which blocks of the context each token's attention chose, over HTTP and gRPC."""

import json

import grpc
import pytest
from server_process import ROOT, ServerProcess

STORY = (ROOT / "tools" / "demo_chapter.txt").read_text()[:6000]
WISH = {"prompt": STORY, "max_tokens": 5, "temperature": 0, "ignore_eos": True}
REFUSALS = {
    "not streamed": ({"stream": False, "nsa_trace": True}, "invalid_value", "nsa_trace"),
    "a number": ({"nsa_trace": 1}, "invalid_type", "nsa_trace"),
    "a list": ({"nsa_trace": [0]}, "invalid_type", "nsa_trace"),
    "layer -1": ({"nsa_trace": {"layers": [-1]}}, "invalid_value", "nsa_trace.layers"),
    "the layer after the last": ({"nsa_trace": {"layers": [6]}}, "invalid_value", "nsa_trace.layers"),
    "a layer twice": ({"nsa_trace": {"layers": [1, 1]}}, "invalid_value", "nsa_trace.layers"),
    "a layer's name": ({"nsa_trace": {"layers": ["0"]}}, "invalid_type", "nsa_trace.layers[0]"),
}


def stream(server, path: str, body: dict) -> list[dict]:
    """The choices of all chunks."""
    choices = []
    with server.client() as client, client.stream("POST", path, json={"stream": True, **body}) as response:
        assert response.status_code == 200, response.read()
        for line in response.iter_lines():
            if line.startswith("data: {"):
                choices += json.loads(line.removeprefix("data: "))["choices"]
    return choices


def traces_of(choices: list[dict], index: int = 0) -> list[dict]:
    return [entry for choice in choices if choice["index"] == index for entry in choice.get("nsa_trace", [])]


def text_of(choices: list[dict]) -> str:
    return "".join(choice["text"] for choice in choices)


@pytest.fixture(scope="module")
def shape(server):
    with server.client() as client:
        return client.get("/v1/models").json()["data"][0]["nsa"]


@pytest.fixture(scope="module")
def whole(server):
    return stream(server, "/v1/completions", {**WISH, "nsa_trace": True})


def test_every_token_has_its_trace_and_the_text_is_the_same_without(server, whole, shape):
    plain = stream(server, "/v1/completions", WISH)
    assert text_of(plain) == text_of(whole) and not any("nsa_trace" in choice for choice in plain)
    traces = traces_of(whole)
    with server.client() as client:
        prompt = client.post("/tokenize", json={"prompt": STORY}).json()["tokens"]
        answer = client.post("/detokenize", json={"tokens": prompt + [entry["token_id"] for entry in traces]}).json()
    assert answer["prompt"] == STORY + text_of(whole)
    assert [entry["position"] for entry in traces] == [len(prompt) - 1 + i for i in range(5)]
    for entry in traces:
        assert entry["kv_read_bytes"] < entry["kv_dense_bytes"]
        assert [layer["layer"] for layer in entry["layers"]] == list(range(shape["num_layers"]))
        own = entry["position"] // shape["block_tokens"]
        for layer in entry["layers"]:
            assert len(layer["blocks"]) == shape["num_kv_heads"]
            for blocks in layer["blocks"]:
                assert len(blocks) == shape["num_selected_blocks"] and blocks == sorted(set(blocks))
                assert {0, own - 1, own} <= set(blocks) <= set(range(own + 1))


def test_layers_can_be_chosen_and_choices_have_their_own(server, whole):
    choices = stream(server, "/v1/completions", {**WISH, "n": 2, "nsa_trace": {"layers": [4, 1]}})
    for index in (0, 1):
        for entry, full in zip(traces_of(choices, index), traces_of(whole), strict=True):
            assert entry["layers"] == [full["layers"][4], full["layers"][1]]


def test_an_echo_has_no_trace(server):
    choices = stream(server, "/v1/completions", {"prompt": "Once", "max_tokens": 2, "ignore_eos": True, "echo": True,
                                                 "nsa_trace": True})
    assert len(traces_of(choices)) == 2


def test_chat_and_grpc_have_the_same_trace(server, api):
    messages = [{"role": "user", "content": STORY}]
    choices = stream(server, "/v1/chat/completions",
                     {"messages": messages, "max_tokens": 5, "temperature": 0, "ignore_eos": True, "nsa_trace": True})
    pb, pb_grpc = api
    request = pb.GenerateRequest(chat=pb.ChatMessages(messages=[pb.ChatMessage(**message) for message in messages]),
                                 max_tokens=5, temperature=0, ignore_eos=True, nsa_trace=pb.TraceOptions())
    with grpc.insecure_channel(server.grpc) as channel:
        responses = list(pb_grpc.GenerationServiceStub(channel).Generate(request))
    over_grpc = []
    for response in responses:
        assert len(response.nsa_trace) == len(response.token_ids)
        over_grpc += [{"token_id": entry.token_id, "position": entry.position, "kv_read_bytes": entry.kv_read_bytes,
                       "kv_dense_bytes": entry.kv_dense_bytes,
                       "layers": [{"layer": layer.layer, "blocks": [list(head.blocks) for head in layer.heads]}
                                  for layer in entry.layers]} for entry in response.nsa_trace]
    assert len(over_grpc) == 5 and over_grpc == traces_of(choices)


def test_the_model_info_has_the_shape(server, api, shape):
    pb, pb_grpc = api
    with grpc.insecure_channel(server.grpc) as channel:
        info = pb_grpc.GenerationServiceStub(channel).GetModelInfo(pb.GetModelInfoRequest())
    assert {name: getattr(info, name) for name in shape} == shape


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals(server, case):
    changes, code, param = REFUSALS[case]
    with server.client() as client:
        answer = client.post("/v1/completions", json={**WISH, "stream": True, **changes})
    assert answer.status_code == 400
    assert (answer.json()["error"]["code"], answer.json()["error"]["param"]) == (code, param)


def test_full_attention_has_nothing_to_trace(api):
    server = ServerProcess("--attention=full")
    with server.client() as client:
        assert "nsa" not in client.get("/v1/models").json()["data"][0]
        answer = client.post("/v1/completions", json={"prompt": "Once", "stream": True, "nsa_trace": True})
        assert answer.status_code == 400 and "runs full attention" in answer.json()["error"]["message"]
    assert server.terminate() == 0
