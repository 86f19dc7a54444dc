"""The official OpenAI SDK against nsa-server: a completion, a streamed one, a streamed chat.

    pip install openai
    python openai_example.py --base-url=http://127.0.0.1:8000/v1
"""

import argparse

import openai


def complete(client: openai.OpenAI, model: str, prompt: str) -> str:
    answer = client.completions.create(model=model, prompt=prompt, max_tokens=32, temperature=0.8, seed=1)
    return answer.choices[0].text


def stream_completion(client: openai.OpenAI, model: str, prompt: str):
    """Yields pieces of text, then the usage."""
    stream = client.completions.create(model=model, prompt=prompt, max_tokens=32, temperature=0.8, seed=1,
                                       stream=True, stream_options={"include_usage": True})
    for chunk in stream:
        if chunk.choices:
            yield chunk.choices[0].text
        else:
            yield chunk.usage


def stream_chat(client: openai.OpenAI, model: str, message: str):
    """Yields pieces of the answer."""
    stream = client.chat.completions.create(model=model, messages=[{"role": "user", "content": message}],
                                            max_tokens=32, stream=True)
    for chunk in stream:
        yield chunk.choices[0].delta.content or ""


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base-url", default="http://127.0.0.1:8000/v1")
    parser.add_argument("--prompt", default="Once upon a time there was a little")
    args = parser.parse_args()
    client = openai.OpenAI(base_url=args.base_url, api_key="none", max_retries=0)
    model = client.models.list().data[0].id
    print(f"Model: {model}\n")

    print("Completion:", args.prompt + complete(client, model, args.prompt))

    print("\nStreamed:", args.prompt, end="", flush=True)
    for piece in stream_completion(client, model, args.prompt):
        if isinstance(piece, str):
            print(piece, end="", flush=True)
        else:
            print(f"\n({piece.prompt_tokens} + {piece.completion_tokens} tokens)")

    print("\nChat: ", end="", flush=True)
    try:
        for piece in stream_chat(client, model, "Tell me about a brave dog."):
            print(piece, end="", flush=True)
    except openai.BadRequestError as error:  # a model without a chat template
        print(error.body["message"], end="")
    print()


if __name__ == "__main__":
    main()
