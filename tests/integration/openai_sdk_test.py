"""The official OpenAI SDK against the server: what existing clients do works unchanged."""

import math

import openai
import pytest

PROMPT = "Once upon a time there was a little"


@pytest.fixture(scope="module")
def client(server):
    return openai.OpenAI(base_url=f"{server.http}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def model(client):
    return client.models.list().data[0].id


def test_models(client, model):
    assert client.models.retrieve(model).id == model
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("another")


def test_completion_and_stream_agree(client, model):
    whole = client.completions.create(model=model, prompt=PROMPT, max_tokens=24, temperature=0)
    assert whole.object == "text_completion"
    assert whole.choices[0].finish_reason == "length"
    assert whole.usage.completion_tokens == 24
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + 24

    chunks = list(client.completions.create(model=model, prompt=PROMPT, max_tokens=24, temperature=0, stream=True,
                                            stream_options={"include_usage": True}))
    assert "".join(c.choices[0].text for c in chunks if c.choices) == whole.choices[0].text
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["length"]
    usage = chunks[-1].usage
    assert chunks[-1].choices == []
    assert usage.prompt_tokens_details.cached_tokens == usage.prompt_tokens - 1  # all but the last one by now
    assert usage.model_copy(update={"prompt_tokens_details": whole.usage.prompt_tokens_details}) == whole.usage
    assert len({c.id for c in chunks}) == 1 and len({c.created for c in chunks}) == 1


def test_chat_and_stream_agree(client, model):
    messages = [{"role": "user", "content": "Tell me about a brave dog."}]
    whole = client.chat.completions.create(model=model, messages=messages, max_tokens=16, temperature=0)
    assert whole.choices[0].message.role == "assistant"
    chunks = list(client.chat.completions.create(model=model, messages=messages, max_tokens=16, temperature=0,
                                                 stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == whole.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason


def test_token_ids_as_prompt_give_the_same_text(server, client, model):
    with server.client() as http:
        tokens = http.post("/tokenize", json={"prompt": PROMPT}).json()["tokens"]
        assert http.post("/detokenize", json={"tokens": tokens}).json()["prompt"].strip() == PROMPT
    by_text = client.completions.create(model=model, prompt=PROMPT, max_tokens=8, temperature=0)
    by_ids = client.completions.create(model=model, prompt=tokens, max_tokens=8, temperature=0)
    assert by_ids.choices[0].text == by_text.choices[0].text


def test_a_chat_prompt_starts_with_bos(server):
    with server.client() as http:
        chat = http.post("/tokenize", json={"messages": [{"role": "user", "content": PROMPT}]}).json()["tokens"]
        text = http.post("/tokenize", json={"prompt": PROMPT}).json()["tokens"]
    assert chat == text  # the bundled template is the text itself


def test_seeds_reproduce_and_choices_differ(client, model):
    def sample(seed):
        answer = client.completions.create(model=model, prompt=PROMPT, max_tokens=16, n=3, seed=seed, temperature=1)
        assert [c.index for c in answer.choices] == [0, 1, 2]
        return [c.text for c in answer.choices]

    first = sample(7)
    assert sample(7) == first
    assert sample(8) != first
    assert len(set(first)) > 1


def test_stop_string_is_cut(client, model):
    free = client.completions.create(model=model, prompt=PROMPT, max_tokens=32, temperature=0).choices[0].text
    stop = free[len(free) // 2:][:4]
    cut = client.completions.create(model=model, prompt=PROMPT, max_tokens=32, temperature=0, stop=[stop])
    assert cut.choices[0].finish_reason == "stop"
    assert cut.choices[0].text == free[:free.index(stop)]
    chunks = client.completions.create(model=model, prompt=PROMPT, max_tokens=32, temperature=0, stop=[stop],
                                       stream=True)
    assert "".join(c.choices[0].text for c in chunks) == cut.choices[0].text


def test_logprobs_of_completions(client, model):
    answer = client.completions.create(model=model, prompt=PROMPT, max_tokens=6, temperature=0, logprobs=3)
    logprobs = answer.choices[0].logprobs
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.top_logprobs) == 6
    assert "".join(logprobs.tokens) == answer.choices[0].text
    for token, logprob, top in zip(logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs):
        assert top[token] == logprob == max(top.values())  # greedy: the chosen one is the best, as the same double
        assert sum(map(math.exp, top.values())) <= 1 + 1e-6


def test_logprobs_of_chat(client, model):
    answer = client.chat.completions.create(model=model, messages=[{"role": "user", "content": "Hello"}],
                                            max_tokens=4, temperature=0, logprobs=True, top_logprobs=5)
    content = answer.choices[0].logprobs.content
    assert len(content) == 4
    for entry in content:
        assert len(entry.top_logprobs) == 5
        assert entry.top_logprobs[0].logprob == entry.logprob
        assert bytes(entry.bytes).decode("utf-8", "replace") == entry.token


def test_min_p_top_k_one_is_greedy(client, model):
    greedy = client.completions.create(model=model, prompt=PROMPT, max_tokens=12, temperature=0).choices[0].text
    for extra in ({"top_k": 1}, {"min_p": 1.0}):
        sampled = client.completions.create(model=model, prompt=PROMPT, max_tokens=12, temperature=1, seed=3,
                                            extra_body=extra)
        assert sampled.choices[0].text == greedy


@pytest.mark.parametrize("body,param", [
    ({"temperature": 2.1}, "temperature"), ({"temperature": -0.1}, "temperature"), ({"top_p": 0}, "top_p"),
    ({"top_p": 1.01}, "top_p"), ({"n": 0}, "n"), ({"n": 129}, "n"), ({"max_tokens": 0}, "max_tokens"),
    ({"logprobs": 6}, "logprobs"), ({"min_p": 1.5}, "min_p"), ({"top_k": -2}, "top_k"),
    ({"prompt": [1, 2, 10**6]}, "prompt"), ({"temperature": "hot"}, "temperature"),
])
def test_values_out_of_range_name_their_field(server, model, body, param):
    with server.client() as http:
        answer = http.post("/v1/completions", json={"model": model, "prompt": "Hi", "max_tokens": 1, **body})
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["param"] == param and error["type"] == "invalid_request_error"
    assert error["code"] in ("invalid_value", "invalid_type")


def test_context_length_names_both_numbers(server, model):
    with server.client() as http:
        max_model_len = http.get("/tokenizer_info").json()["max_model_len"]
        answer = http.post("/v1/completions", json={"model": model, "prompt": "Hi", "max_tokens": 10**7})
    error = answer.json()["error"]
    assert answer.status_code == 400 and error["code"] == "context_length_exceeded"
    assert f"and {10**7} are to be generated" in error["message"]
    assert f"at most {max_model_len} are allowed" in error["message"]
