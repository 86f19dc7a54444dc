"""API keys, TLS and CORS of the real server, as clients meet them."""

import subprocess

import grpc
import httpx
import openai
import pytest

import server_process

KEY = "sk-a-key-for-the-tests"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("access")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                    "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
                    "-keyout", folder / "key.pem", "-out", folder / "cert.pem"], check=True, capture_output=True)
    (folder / "keys").write_text(f"# keys of the tests\nsk-another-key\n{KEY}\n")
    (folder / "key").write_text(KEY + "\n")
    return folder


@pytest.fixture(scope="module")
def secure(files):
    running = server_process.ServerProcess(f"--api-key-file={files / 'keys'}", f"--tls-cert={files / 'cert.pem'}",
                                           f"--tls-key={files / 'key.pem'}", "--cors-origins=https://chat.example")
    yield running
    assert running.terminate() == 0, "".join(running.stderr_lines)


def trusting(files) -> httpx.Client:
    return httpx.Client(verify=str(files / "cert.pem"), timeout=60)


def test_the_openai_client_works_with_key_and_certificate(secure, files):
    client = openai.OpenAI(base_url=secure.http + "/v1", api_key=KEY, http_client=trusting(files))
    answer = client.completions.create(model="nsa-story-27m", prompt="Once upon a time", max_tokens=8, temperature=0)
    assert answer.choices[0].text
    stream = client.completions.create(model="nsa-story-27m", prompt="Once upon a time", max_tokens=8, temperature=0,
                                       stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == answer.choices[0].text


def test_without_a_key_nothing_but_probes_answers(secure, files):
    with trusting(files) as client:
        for path in ("/health", "/health/ready", "/metrics"):
            assert client.get(secure.http + path).status_code == 200
        refused = client.get(secure.http + "/v1/models")
        assert refused.status_code == 401 and refused.headers["www-authenticate"] == "Bearer"
        assert refused.json()["error"]["code"] == "invalid_api_key"
        assert KEY not in refused.text
    wrong = openai.OpenAI(base_url=secure.http + "/v1", api_key="sk-wrong-key", http_client=trusting(files))
    with pytest.raises(openai.AuthenticationError):
        wrong.models.list()


def test_a_client_that_does_not_trust_the_certificate_gets_nothing(secure):
    with pytest.raises(httpx.ConnectError), httpx.Client() as client:
        client.get(secure.http + "/health")
    with pytest.raises(httpx.HTTPError), httpx.Client() as client:
        client.get(secure.http.replace("https://", "http://") + "/health")


def test_grpc_wants_both(secure, files, api):
    generation_pb2, generation_pb2_grpc = api
    credentials = grpc.ssl_channel_credentials((files / "cert.pem").read_bytes())
    with grpc.secure_channel(secure.grpc, credentials) as channel:
        stub = generation_pb2_grpc.GenerationServiceStub(channel)
        request = generation_pb2.GenerateRequest(text="Once", max_tokens=4)
        with pytest.raises(grpc.RpcError) as refused:
            list(stub.Generate(request))
        assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
        assert list(stub.Generate(request, metadata=[("authorization", "Bearer " + KEY)]))
    with grpc.insecure_channel(secure.grpc) as channel:
        with pytest.raises(grpc.RpcError) as refused:
            list(generation_pb2_grpc.GenerationServiceStub(channel).Generate(request, timeout=10))
        assert refused.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


def test_the_cli_has_flags_for_both(secure, files):
    command = [server_process.build_dir() / "bin" / "nsa-cli", "generate", "Once", "--max-tokens=4",
               f"--address={secure.grpc}"]
    accepted = subprocess.run([*command, f"--api-key-file={files / 'key'}", f"--tls-ca={files / 'cert.pem'}"],
                              capture_output=True, text=True, timeout=60)
    assert accepted.returncode == 0 and accepted.stdout.strip(), accepted.stderr
    refused = subprocess.run([*command, f"--tls-ca={files / 'cert.pem'}"], capture_output=True, text=True, timeout=60)
    assert refused.returncode == 1 and "UNAUTHENTICATED" in refused.stderr


def test_browsers_of_allowed_origins_may_call(secure, files):
    with trusting(files) as client:
        preflight = client.options(secure.http + "/v1/completions",
                                   headers={"Origin": "https://chat.example", "Access-Control-Request-Method": "POST",
                                            "Access-Control-Request-Headers": "authorization, content-type"})
        assert preflight.status_code == 204
        assert preflight.headers["access-control-allow-origin"] == "https://chat.example"
        other = client.get(secure.http + "/health", headers={"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers


@pytest.mark.parametrize("flags, message", [
    (["--api-key-file=/nowhere/keys"], "/nowhere/keys"),
    (["--tls-cert=/nowhere/cert", "--tls-key=/nowhere/key"], "/nowhere/cert"),
    (["--tls-cert=x"], "belong together"),
])
def test_a_start_with_bad_files_fails_and_says_why(flags, message):
    command = [server_process.build_dir() / "bin" / "nsa-server", f"--model={server_process.MODEL}", "--http-port=0",
               "--grpc-port=0", *flags]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1 and message in ended.stderr
