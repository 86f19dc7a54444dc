"""GET /openapi.json against what the server does: routes, fields, types, limits and the shape of its answers."""

import json
import math
import pathlib
import re

import jsonschema
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from server_process import ROOT, ServerProcess

SOURCES = pathlib.Path(ROOT / "server" / "http")
DOCUMENT = json.loads((SOURCES / "openapi.json").read_text())
SCHEMAS = DOCUMENT["components"]["schemas"]
# The shortest request of each endpoint.
BASE = {
    "/v1/completions": {"prompt": [1], "max_tokens": 1},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "a"}], "max_tokens": 1},
    "/tokenize": {"prompt": "a"},
    "/detokenize": {"tokens": [300]},
}
# Fields that a field is allowed with, or that would get in its way if they stayed.
CONTEXT = {
    ("/v1/chat/completions", "top_logprobs"): {"logprobs": True},
    ("/v1/completions", "stream_options"): {"stream": True},
    ("/v1/completions", "nsa_trace"): {"stream": True},
    ("/v1/chat/completions", "nsa_trace"): {"stream": True},
    ("/v1/chat/completions", "stream_options"): {"stream": True},
    ("/tokenize", "messages"): {"prompt": None},
}


@pytest.fixture(scope="module")
def http():
    server = ServerProcess("--max-queued-requests=1100", "--access-log=off")
    with server.client() as client:
        yield client
    assert server.terminate() == 0


def resolve(schema: dict) -> dict:
    """Without references and allOf at its top."""
    while "$ref" in schema:
        schema = SCHEMAS[schema["$ref"].rsplit("/", 1)[1]]
    merged = {"properties": {}}
    for part in map(resolve, schema.get("allOf", [])):
        merged = {**merged, **part, "properties": {**merged["properties"], **part.get("properties", {})}}
    return {**merged, **schema, "properties": {**merged["properties"], **schema.get("properties", {})}}


def request_schema(path: str) -> dict:
    return resolve(DOCUMENT["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"])


def types(schema: dict) -> list[str]:
    found = schema.get("type", [])
    return [found] if isinstance(found, str) else found


# --- the document ------------------------------------------------------------------------------------------------


def test_the_server_serves_the_document_with_its_version(http):
    served = http.get("/openapi.json").json()
    assert served["info"]["version"] == http.get("/version").json()["version"]
    served["info"]["version"] = "{VERSION}"
    assert served == DOCUMENT


def test_the_document_is_openapi_3_1():
    OpenAPIV31SpecValidator(DOCUMENT).validate()


def test_its_routes_are_the_servers_routes(http):
    # Each route has a counter from the start.
    counted = set(re.findall(r'nsa_http_requests_total\{[^}]*route="([^"]*)"[^}]*\}', http.get("/metrics").text))
    assert counted - {"none"} == set(DOCUMENT["paths"])
    for path, item in DOCUMENT["paths"].items():
        allowed = set(http.options(path.replace("{id}", "x")).headers["allow"].split(", "))
        methods = {method.upper() for method in item if method != "parameters"}
        assert methods == allowed - {"HEAD", "OPTIONS"}, path


def test_every_field_that_the_server_reads_is_in_it():
    reader = re.compile(r'(?:\.|->)(?:String|Bool|Int|Bits|Number|IntList|StringOrList|Object|Find)\("(\w+)"\)')
    texts = {path.name: path.read_text() for path in SOURCES.glob("*.cc")}
    read = {name for text in texts.values() for name in reader.findall(text)}
    read |= set(re.findall(r'constexpr char k(?:Key|Format)\[\] = "(\w+)"', texts["constraint_fields.cc"]))
    read |= set(re.findall(r'^    \{"(\w+)", &', texts["unsupported_fields.cc"], re.MULTILINE))
    assert len(read) > 60
    documented = set()

    def collect(schema):
        schema = resolve(schema)
        documented.update(schema["properties"])
        items = [schema["items"]] if "items" in schema else []
        for part in [*schema["properties"].values(), *items, *schema.get("anyOf", [])]:
            collect(part)

    for path in BASE:
        collect(request_schema(path))
    assert read == documented


# --- types -------------------------------------------------------------------------------------------------------


def fields():
    return [(path, name) for path in BASE for name in request_schema(path)["properties"]]


def body_with(path: str, name: str, value) -> dict:
    return {**BASE[path], **CONTEXT.get((path, name), {}), name: value}


def refusal(answer, name: str):
    """The code of a 400 that names the field or what is in it."""
    assert answer.status_code == 400, f"{name}: {answer.status_code} {answer.text[:300]}"
    error = answer.json()["error"]
    assert re.split(r"[.\[]", error["param"])[0] == name, error
    return error["code"]


@pytest.mark.parametrize("path, name", fields())
def test_a_field_of_another_type_is_refused(http, path, name):
    """Which shows that the field is read, too."""
    schema = request_schema(path)["properties"][name]
    validator = jsonschema.Draft202012Validator({**schema, "components": DOCUMENT["components"]})
    wrong = [value for value in ({"x": [1]}, [[True]], "word", 1.5, True) if not validator.is_valid(value)]
    assert wrong
    for value in wrong:
        assert refusal(http.post(path, json=body_with(path, name, value)), name) in (
            "invalid_type", "invalid_value", "missing_required_parameter"), value


@pytest.mark.parametrize("path", BASE)
def test_fields_that_are_needed_are_needed_and_null_is_absence_elsewhere(http, path):
    schema = request_schema(path)
    for name in schema.get("required", []):
        body = {key: value for key, value in BASE[path].items() if key != name}
        assert refusal(http.post(path, json=body), name) == "missing_required_parameter"
        assert refusal(http.post(path, json=body | {name: None}), name) == "missing_required_parameter"
    optional = set(schema["properties"]) - set(BASE[path])
    nothing = {name: None for name in optional}
    assert http.post(path, json=BASE[path] | nothing).status_code == 200
    for name in optional:
        validator = jsonschema.Draft202012Validator(
            {**schema["properties"][name], "components": DOCUMENT["components"]})
        assert validator.is_valid(None), f"{name} may be null"


# --- limits ------------------------------------------------------------------------------------------------------


def numbers(schema: dict):
    """(value, allowed) at, below and above each bound."""
    step = 1 if "integer" in types(schema) else 1e-6
    for bound, sign in (("minimum", -1), ("maximum", 1)):
        if bound in schema:
            yield schema[bound], True
            yield schema[bound] + sign * step, False
    for bound, sign in (("exclusiveMinimum", -1), ("exclusiveMaximum", 1)):
        if bound in schema:
            yield schema[bound], False
            yield schema[bound] - sign * step, True


def a_string(num_bytes: int) -> str:
    return "a" * num_bytes


def lists(schema: dict):
    item = schema.get("items", {})

    def some(count):
        return [example(item, i) for i in range(count)]

    if "minItems" in schema:
        yield some(schema["minItems"]), True
        yield some(schema["minItems"] - 1), False
    if "maxItems" in schema:
        yield some(schema["maxItems"]), True
        yield some(schema["maxItems"] + 1), False
    for value, allowed in limits(item):
        yield [value], allowed


def objects(schema: dict):
    values = schema.get("additionalProperties", {"type": "integer"})
    if "maxProperties" in schema:
        for count, allowed in ((schema["maxProperties"], True), (schema["maxProperties"] + 1, False)):
            yield {str(i): example(values, i) for i in range(count)}, allowed
    for value, allowed in limits(values):
        yield {"5": value}, allowed


def example(schema: dict, i: int):
    """An allowed value, number i of several."""
    schema = resolve(schema)
    if "enum" in schema:
        return schema["enum"][0]
    if "anyOf" in schema:
        return example(schema["anyOf"][0], i)
    kind = next(kind for kind in [*types(schema), "integer"])
    if kind == "object":
        return {name: example(schema["properties"][name], i) for name in schema.get("required", [])}
    if kind == "array":
        return [example(schema["items"], i)]
    return {"string": f"w{i}", "integer": i % 4096, "number": 0.5, "boolean": True}[kind]


def limits(schema: dict):
    """(value, allowed) at, below and above each limit of a schema."""
    schema = resolve(schema)
    for alternative in schema.get("anyOf", []):
        yield from limits(alternative)
    for value in schema.get("enum", []):
        yield value, True
    if "string" in types(schema):
        if "minLength" in schema:
            yield a_string(schema["minLength"]), True
            yield a_string(schema["minLength"] - 1), False
        if "maxLength" in schema:
            yield a_string(schema["maxLength"]), True
            yield a_string(schema["maxLength"] + 1), False
    if "integer" in types(schema) or "number" in types(schema):
        yield from numbers(schema)
    if "array" in types(schema):
        yield from lists(schema)
    if "object" in types(schema):
        yield from objects(schema)


def limit_cases():
    for path, name in fields():
        cases = list(limits(request_schema(path)["properties"][name]))
        if cases:
            yield pytest.param(path, name, cases, id=f"{path} {name}")


# What a schema in itself cannot say: an allowed value that is refused for another reason, and why.
ELSEWHERE = {
    "best_of": "must be equal to n",
    "guided_regex": "is an expression as well",
    "response_format": "has a test of its own",
}


@pytest.mark.parametrize("path, name, cases", limit_cases())
def test_limits(http, path, name, cases):
    for value, allowed in cases:
        body = body_with(path, name, value)
        if name == "best_of":
            body["n"] = value
        answer = http.post(path, json=body)
        if allowed and name not in ELSEWHERE:
            # A timeout of a microsecond is an allowed one.
            assert answer.status_code in ((200, 504) if name == "timeout" else (200,)), f"{str(value)[:60]}: {answer.text[:300]}"
        elif not allowed:
            where = "n" if name == "best_of" else name
            assert refusal(answer, where) in ("invalid_value", "invalid_type", "missing_required_parameter"), str(value)[:60]


def test_there_are_limits_to_test():
    cases = [case for parameters in limit_cases() for case in parameters.values[2]]
    assert len(cases) > 150 and 50 < sum(allowed for _, allowed in cases) < len(cases) - 50


def test_limits_that_hang_together(http):
    path = "/v1/completions"

    def status(**body):
        return http.post(path, json=BASE[path] | body).status_code

    assert status(n=2, best_of=2) == 200 and status(n=2, best_of=3) == 400
    assert status(guided_regex="a" * 1000) == 200 and status(guided_regex="a" * 131073) == 400
    for kind in ("text", "json_object"):
        assert status(response_format={"type": kind}) == 200
    assert status(response_format={"type": "grammar"}) == 400
    pattern = SCHEMAS["GenerationFields"]["properties"]["response_format"]["properties"]["json_schema"]["properties"]["name"]["pattern"]
    for name in ("a", "A-1_z", "a" * 64, "", "a" * 65, "a b", "é"):
        schema = {"type": "json_schema", "json_schema": {"name": name, "schema": {"type": "boolean"}}}
        assert status(response_format=schema) == (200 if re.fullmatch(pattern[1:-1], name) else 400), name
    assert status(min_tokens=1) == 200 and status(min_tokens=2) == 400
    assert status(stream_options={"include_usage": True}) == 400
    assert status(guided_choice=["a"], guided_regex="b") == 400


# --- answers -----------------------------------------------------------------------------------------------------


def check(answer, path: str, method: str):
    """The answer against what the document says of its status and media type."""
    documented = DOCUMENT["paths"][path][method]["responses"]
    assert str(answer.status_code) in documented, f"{path}: {answer.status_code} is not documented"
    response = documented[str(answer.status_code)]
    if "$ref" in response:
        response = DOCUMENT["components"]["responses"][response["$ref"].rsplit("/", 1)[1]]
    for header, rule in response.get("headers", {}).items():
        assert not rule["required"] or header in answer.headers
    media_type = answer.headers["content-type"].split(";")[0]
    schema = {**response["content"][media_type]["schema"], "components": DOCUMENT["components"]}
    bodies = [answer.text]
    if media_type == "text/event-stream":
        bodies = [line.removeprefix("data: ") for line in answer.text.splitlines() if line][:-1]
    for body in bodies:
        is_json = media_type in ("application/json", "text/event-stream")
        jsonschema.validate(json.loads(body) if is_json else body, schema, cls=jsonschema.Draft202012Validator)


@pytest.mark.parametrize("path", [path for path, item in DOCUMENT["paths"].items() if "get" in item])
def test_answers_to_get(http, path):
    name = http.get("/v1/models").json()["data"][0]["id"]
    answer = http.get(path.replace("{id}", name).replace("{file}", "style.css"))
    assert answer.status_code == 200
    check(answer, path, "get")
    if "{id}" in path:
        check(http.get(path.replace("{id}", "another")), path, "get")


@pytest.mark.parametrize("path", BASE)
@pytest.mark.parametrize("extra", [
    {}, {"n": 2, "max_tokens": 4, "logprobs": 1, "echo": True}, {"logprobs": True, "top_logprobs": 2},
    {"stream": True, "max_tokens": 4, "stream_options": {"include_usage": True}},
    {"stream": True, "max_tokens": 4, "n": 2, "logprobs": 1}, {"stream": True, "logprobs": True},
    {"stream": True, "max_tokens": 2, "nsa_trace": True}, {"nsa_trace": True},
    {"temperature": 3}, {"model": "another"}, {"timeout": 1e-6}])
def test_answers_to_post(http, path, extra):
    check(http.post(path, json=BASE[path] | extra), path, "post")


@pytest.mark.parametrize("path", BASE)
def test_refusals_of_bodies(http, path):
    json_type = {"content-type": "application/json"}
    for status, body, headers in ((400, b"{", json_type), (415, b"{}", {"content-type": "text/plain"}),
                                  (413, b"[" + b" " * (17 << 20), json_type)):
        answer = http.post(path, content=body, headers=headers)
        assert answer.status_code == status
        check(answer, path, "post")


def test_tokenizer_info_describes_the_tokenizer(http):
    info = http.get("/tokenizer_info").json()
    model = http.get("/v1/models").json()["data"][0]
    assert info["max_model_len"] == info["model_max_length"] == model["max_model_len"]
    assert info["tokenizer_class"] == "LlamaTokenizer"
    special = {token["content"]: int(token_id) for token_id, token in info["added_tokens_decoder"].items()}
    tokens = http.post("/tokenize", json={"prompt": "Once"}).json()["tokens"]
    assert tokens[0] == special[info["bos_token"]]
    assert info["eos_token"] in special and math.isfinite(info["vocab_size"])
    assert http.post("/detokenize", json={"tokens": [info["vocab_size"] - 1]}).status_code == 200
    assert http.post("/detokenize", json={"tokens": [info["vocab_size"]]}).status_code == 400
    config = json.loads((ROOT / "models" / "nsa-story-27m" / "tokenizer_config.json").read_text())
    for key in ("chat_template", "bos_token", "eos_token", "unk_token"):
        assert info[key] == config[key]
    assert info["pad_token"] is None
