"""A model folder with tokenizer.json instead of tokenizer.model, served as it is."""

import json
import shutil

import pytest
from lifecycle_test import assert_refused, run_server
from server_process import MODEL, ROOT, ServerProcess

LLAMA3 = ROOT / "tests" / "golden" / "tokenizers" / "llama3"


@pytest.fixture
def model(tmp_path):
    """The bundled model with the tokenizer of another; its texts make no sense, its tokens do."""
    folder = tmp_path / "model"
    shutil.copytree(MODEL, folder, ignore=shutil.ignore_patterns("tokenizer*", "generation_config.json"))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(LLAMA3 / name, folder / name)
    return folder


def test_texts_go_in_and_out(model):
    golden = json.loads((LLAMA3 / "golden.json").read_text())
    server = ServerProcess(model=model)
    with server.client() as client:
        bos = client.post("/tokenize", json={"prompt": ""}).json()["tokens"]
        assert len(bos) == 1
        for case in golden:
            tokens = client.post("/tokenize", json={"prompt": case["text"]}).json()["tokens"]
            assert tokens == bos + case["tokens"], case["text"]
            assert client.post("/detokenize", json={"tokens": tokens}).json()["prompt"] == case["text"]
        body = {"prompt": "Hello", "max_tokens": 20, "temperature": 0, "ignore_eos": True}
        whole = client.post("/v1/completions", json=body).json()
        assert whole["usage"]["completion_tokens"] == 20
        streamed = ""
        with client.stream("POST", "/v1/completions", json={**body, "stream": True}) as response:
            for line in response.iter_lines():
                if line.startswith("data: {"):
                    streamed += json.loads(line[6:])["choices"][0]["text"]
        assert streamed == whole["choices"][0]["text"]
    assert server.terminate() == 0


def test_more_tokens_than_the_model_has_are_refused(model):
    vocab_size = json.loads((model / "config.json").read_text())["vocab_size"]
    file = json.loads((model / "tokenizer.json").read_text())
    file["added_tokens"].append({**file["added_tokens"][-1], "id": vocab_size, "content": "<|one_more|>"})
    (model / "tokenizer.json").write_text(json.dumps(file))
    assert_refused(run_server(f"--model={model}"), f"tokenizer.json has {vocab_size + 1} tokens", str(vocab_size))


def test_what_is_not_supported_is_named(model):
    file = json.loads((model / "tokenizer.json").read_text())
    file["model"]["type"] = "Unigram"
    (model / "tokenizer.json").write_text(json.dumps(file))
    assert_refused(run_server(f"--model={model}"), 'model.type is "Unigram"; supported: BPE')
