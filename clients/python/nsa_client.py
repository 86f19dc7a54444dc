"""A thin gRPC client: code generated from proto/ at run time, and one class over it.

    pip install grpcio grpcio-tools
    python nsa_client.py "Once upon a time" --address=127.0.0.1:9000

Fields of a request are those of GenerateRequest in proto/nsa/v1/generation.proto.
"""

import argparse
import importlib
import pathlib
import sys
import tempfile

import grpc
from grpc_tools import protoc

PROTO = pathlib.Path(__file__).resolve().parents[2] / "proto"


def generate_code(proto: pathlib.Path = PROTO):
    """The generated modules (messages, stubs) of generation.proto."""
    out = tempfile.mkdtemp(prefix="nsa_proto_")
    if protoc.main(["protoc", f"-I{proto}", f"--python_out={out}", f"--grpc_python_out={out}",
                    "nsa/v1/generation.proto"]) != 0:
        raise RuntimeError(f"protoc cannot compile {proto}/nsa/v1/generation.proto")
    sys.path.insert(0, out)
    return importlib.import_module("nsa.v1.generation_pb2"), importlib.import_module("nsa.v1.generation_pb2_grpc")


class Client:
    def __init__(self, address: str = "127.0.0.1:9000"):
        self.messages, stubs = generate_code()
        self._channel = grpc.insecure_channel(address)
        self._stub = stubs.GenerationServiceStub(self._channel)

    def close(self):
        self._channel.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def generate(self, prompt: str, **fields):
        """Streams GenerateResponse messages; the last one carries `usage`."""
        return self._stub.Generate(self.messages.GenerateRequest(text=prompt, **fields))

    def chat(self, messages: list[dict], **fields):
        """The same for a list of {"role": ..., "content": ...}."""
        chat = self.messages.ChatMessages(messages=[self.messages.ChatMessage(**m) for m in messages])
        return self._stub.Generate(self.messages.GenerateRequest(chat=chat, **fields))

    def tokenize(self, text: str) -> list[int]:
        return list(self._stub.Tokenize(self.messages.TokenizeRequest(text=text)).token_ids)

    def model_info(self):
        return self._stub.GetModelInfo(self.messages.GetModelInfoRequest())


def main():
    parser = argparse.ArgumentParser(description="Continues a text, streamed over gRPC.")
    parser.add_argument("prompt", nargs="?", default="Once upon a time")
    parser.add_argument("--address", default="127.0.0.1:9000")
    parser.add_argument("--max-tokens", type=int, default=64)
    args = parser.parse_args()
    with Client(args.address) as client:
        usage = None
        for response in client.generate(args.prompt, max_tokens=args.max_tokens):
            print(response.text, end="", flush=True)
            usage = response.usage
        print(f"\n{usage.completion_tokens} tokens; KV cache read: {usage.kv_read_bytes} bytes, "
              f"full attention: {usage.kv_dense_bytes} bytes")


if __name__ == "__main__":
    main()
