"""Constrained JSON against an independent validator.

Random schemas: every output drawn through the token masks must parse and validate, and every document generated from the
schema without the compiler must be accepted, spelled byte by byte and in long tokens.
"""

import datetime
import ipaddress
import json
import os
import pathlib
import random
import re
import subprocess
import uuid

import jsonschema
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
PROBE = pathlib.Path(os.environ.get("NSA_BUILD_DIR", ROOT / "build" / "cpu-release")) / "bin" / "constraint_probe"
NUM_SCHEMAS = 400
TEXTS = ["", "a", "Zürich", "日本語", "quote\" and \\", "tab\tline\n", "😀", "\u007f", "\u2028x", "nul\u0000", "/"]
PATTERNS = [  # with texts that match, as a search
    (r"^[A-Z]{2}-\d{1,4}$", ["AB-1", "ZZ-1234"]),
    (r"colou?r", ["color", "my colour\n", "\"color\""]),
    (r"^(?:x|yy)+$", ["x", "yyx"]),
    (r"^[^a-z]*$", ["", "ABC\"\\\u0001é"]),
    (r"\.(?:png|jpe?g)$", [".png", "/a b/c.jpeg"]),
    (r"^\w+\s\S+$", ["ab c", "a_1\té"]),
]
FORMATS = {
    "date": ["2024-02-29", "1999-12-31", "2000-02-29"],
    "time": ["23:59:59Z", "00:00:00.123+05:30"],
    "date-time": ["2024-02-29T12:00:00Z", "1900-02-28T00:00:00.5-11:00"],
    "uuid": ["123e4567-E89b-12d3-a456-426614174000"],
    "email": ["a.b+c@example.com", "x@y"],
    "ipv4": ["0.0.0.0", "255.249.10.99"],
    "hostname": ["a", "a-b.example"],
}


def is_date(text):
    return text.startswith("0000") or bool(datetime.date.fromisoformat(text))


CHECKS = {
    "date": is_date,
    "time": lambda text: bool(datetime.time.fromisoformat(re.sub(r"\.\d+", "", text).replace("Z", "+00:00"))),
    "date-time": lambda text: is_date(text[:10]) and text[10] == "T" and CHECKS["time"](text[11:]),
    "uuid": lambda text: bool(uuid.UUID(text)) and len(text) == 36,
    "email": lambda text: text.count("@") == 1 and " " not in text,
    "ipv4": lambda text: bool(ipaddress.IPv4Address(text)),
    "hostname": lambda text: all(re.fullmatch(r"[A-Za-z0-9-]{1,63}", label) for label in text.split(".")),
}
CHECKER = jsonschema.FormatChecker(formats=())
for name, check in CHECKS.items():
    CHECKER.checks(name, raises=ValueError)(lambda value, check=check: not isinstance(value, str) or check(value))


def ask(questions):
    lines = "\n".join(json.dumps(question) for question in questions) + "\n"
    result = subprocess.run([PROBE], input=lines, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr[-2000:]
    return [json.loads(line) for line in result.stdout.split("\n") if line]


def question(schema, documents=(), walks=0, seed=1):
    source = schema if isinstance(schema, str) else json.dumps(schema)
    return {"kind": "schema", "source": source, "accept": list(documents), "walks": walks, "seed": seed}


class Generator:
    """A random schema, and documents that it accepts, made together: `make` returns (schema, draw)."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def make(self, depth):
        kinds = ["string", "pattern", "format", "integer", "number", "boolean", "null", "enum", "const", "types"]
        if depth > 0:
            kinds += ["object", "object", "object", "array", "array", "tuple", "any_of", "all_of", "free"]
        return getattr(self, self.random.choice(kinds))(depth)

    def string(self, _):
        low, high = sorted(self.random.sample(range(0, 12), 2))
        schema = {"type": "string"}
        if self.random.random() < 0.5:
            schema["maxLength"] = high
        if self.random.random() < 0.5:
            schema["minLength"] = low
        texts = [text for text in TEXTS + ["x" * low, "é" * high] if len(text) >= schema.get("minLength", 0)
                 and len(text) <= schema.get("maxLength", 99)]
        return schema, lambda: self.random.choice(texts)

    def pattern(self, _):
        pattern, texts = self.random.choice(PATTERNS)
        return {"type": "string", "pattern": pattern}, lambda: self.random.choice(texts)

    def format(self, _):
        name, texts = self.random.choice(sorted(FORMATS.items()))
        return {"type": "string", "format": name}, lambda: self.random.choice(texts)

    def integer(self, _):
        low = self.random.choice([-(10 ** 15), -120, -5, 0, 1, 99, 1000])
        high = low + self.random.choice([0, 1, 9, 100, 12345, 10 ** 12])
        schema = {"type": "integer"}
        if self.random.random() < 0.7:
            schema.update(self.random.choice([{"minimum": low}, {"exclusiveMinimum": low - 1}, {"minimum": low - 0.5}]))
        if self.random.random() < 0.7:
            schema.update(self.random.choice([{"maximum": high}, {"exclusiveMaximum": high + 1},
                                              {"maximum": high + 0.5}]))
        return schema, lambda: self.random.choice([low, high, self.random.randint(low, high)])

    def number(self, _):
        low = self.random.choice([-1000.5, -1, -0.001, 0, 0.1, 1, 20.25])
        high = low + self.random.choice([0.0625, 1, 10.5, 1e6])
        schema = {"type": "number"}
        if self.random.random() < 0.7:
            schema[self.random.choice(["minimum", "exclusiveMinimum"])] = low
        if self.random.random() < 0.7:
            schema[self.random.choice(["maximum", "exclusiveMaximum"])] = high
        return schema, lambda: self.random.choice([round(low + (high - low) * k / 8, 9) for k in range(1, 8)])

    def boolean(self, _):
        return {"type": "boolean"}, lambda: self.random.random() < 0.5

    def null(self, _):
        return {"type": "null", "title": "nothing"}, lambda: None

    def enum(self, _):
        values = self.random.sample(["a", "ab", "abc", "é\"", 1, 12, 2.5, True, None, [1, {"x": []}], {}, ""], 4)
        return {"enum": values}, lambda: self.random.choice(values)

    def const(self, _):
        value = self.random.choice(["only", 7, {"k": ["v", 1]}, []])
        return {"const": value}, lambda: value

    def types(self, _):
        schema = {"type": ["string", "null", "integer"], "maxLength": 3, "minimum": 0}
        return schema, lambda: self.random.choice(["", "abc", "日本", None, 0, 77])

    def free(self, _):
        return self.random.choice([True, {}, {"description": "anything"}]), lambda: self.random.choice(
            [1, "x", None, True, [], {"a": [1.5, {"b": {}}]}])

    def object(self, depth):
        names = self.random.sample(["a", "b", "ab", "name", "été", "q\"", "", "long property"], self.random.randint(1, 4))
        members = {name: self.make(depth - 1) for name in names}
        required = [name for name in names if self.random.random() < 0.5]
        schema = {"type": "object", "properties": {name: member[0] for name, member in members.items()},
                  "required": required}
        rest = self.random.choice([None, False, "schema"])
        extra = ({"type": "integer", "minimum": 0}, lambda: 3) if rest == "schema" else (True, lambda: {"any": [0]})
        if rest is not None:
            schema["additionalProperties"] = False if rest is False else extra[0]

        def draw():
            document = {name: members[name][1]() for name in names if name in required or self.random.random() < 0.5}
            if rest is not False and self.random.random() < 0.5:
                document[self.random.choice(["abc", "nam", "x\\", "other"])] = extra[1]()
            return document

        return schema, draw

    def array(self, depth):
        item, draw = self.make(depth - 1)
        low = self.random.randint(0, 2)
        high = low + self.random.randint(0, 3)
        schema = {"type": "array", "items": item}
        if self.random.random() < 0.5:
            schema["maxItems"] = high
        if low > 0:
            schema["minItems"] = low
        return schema, lambda: [draw() for _ in range(self.random.randint(low, high))]

    def tuple(self, depth):
        first, rest = self.make(depth - 1), self.make(depth - 1)
        schema = {"type": "array", "prefixItems": [first[0], {"type": "boolean"}], "items": rest[0]}
        return schema, lambda: ([first[1](), True] + [rest[1]() for _ in range(self.random.randint(0, 2))])[
            :self.random.choice([0, 1, 2, 9])]

    def any_of(self, depth):
        branches = [self.make(depth - 1) for _ in range(self.random.randint(1, 3))]
        return {"anyOf": [branch[0] for branch in branches]}, lambda: self.random.choice(branches)[1]()

    def all_of(self, _):
        schema = {"allOf": [{"type": "object", "properties": {"p": {"type": "integer"}}, "required": ["p"]},
                            {"properties": {"p": {"minimum": 3}, "r": {"type": "null"}},
                             "additionalProperties": {"maximum": 9}}]}
        return schema, lambda: self.random.choice([{"p": 3}, {"p": 8, "r": None}, {"p": 9, "z": 9}, {"p": 4, "s": "t"}])


def spell(document, rng):
    """One of the usual spellings of a document; members stay in the order of the schema."""
    style = rng.choice([{"separators": (",", ":")}, {}, {"indent": 2}, {"indent": 1}])
    return json.dumps(document, ensure_ascii=False, **style)


@pytest.fixture(scope="module")
def random_cases():
    cases = []
    for seed in range(NUM_SCHEMAS):
        generator = Generator(seed)
        schema, draw = generator.make(3)
        documents = [draw() for _ in range(6)]
        validator = jsonschema.Draft202012Validator(schema, format_checker=CHECKER)
        assert all(validator.is_valid(document) for document in documents), (schema, documents)
        texts = [spell(document, generator.random) for document in documents]
        cases.append((schema, texts, validator))
    answers = ask([question(schema, texts, walks=6, seed=i) for i, (schema, texts, _) in enumerate(cases)])
    assert len(answers) == NUM_SCHEMAS
    return list(zip(cases, answers))


def test_random_schemas_compile(random_cases):
    refused = [(schema, answer["error"]) for (schema, _, _), answer in random_cases if "error" in answer]
    assert refused == []


def test_outputs_drawn_through_the_masks_are_valid(random_cases):
    num_outputs = num_unfinished = 0
    for (schema, _, validator), answer in random_cases:
        for output in answer["outputs"]:
            num_outputs += 1
            if output is None:
                num_unfinished += 1
                continue
            errors = list(validator.iter_errors(json.loads(output)))
            assert not errors, (schema, output, errors[0].message)
    assert num_outputs == 6 * NUM_SCHEMAS and num_unfinished < num_outputs // 10


def test_documents_generated_independently_are_accepted(random_cases):
    for (schema, texts, _), answer in random_cases:
        missed = [text for text, accepted in zip(texts, answer["accepted"]) if accepted is not True]
        assert missed == [], (schema, missed)


def test_mutated_documents_are_judged_as_the_validator_judges(random_cases):
    """A document with one value replaced is accepted if it is still valid and only then."""
    rng = random.Random(5)
    questions, verdicts = [], []
    for (schema, texts, validator), _ in random_cases:
        mutants = [mutate(json.loads(text), rng) for text in texts]
        questions.append(question(schema, [json.dumps(mutant, ensure_ascii=False) for mutant in mutants]))
        verdicts.append([validator.is_valid(mutant) for mutant in mutants])
    num_invalid = 0
    for asked, expected, answer in zip(questions, verdicts, ask(questions)):
        assert answer["accepted"] == expected, (asked["source"], asked["accept"])
        num_invalid += expected.count(False)
    assert num_invalid > NUM_SCHEMAS


def mutate(document, rng):
    if isinstance(document, dict) and document and rng.random() < 0.8:
        key = rng.choice(list(document))
        return {name: mutate(value, rng) if name == key else value for name, value in document.items()}
    if isinstance(document, list) and document and rng.random() < 0.8:
        index = rng.randrange(len(document))
        return [mutate(value, rng) if i == index else value for i, value in enumerate(document)]
    return rng.choice([None, 5, -1, "text", "", [], {}, [None], {"a": 1}, 0.5, 10 ** 14, False, "ab-1"])


def test_recursive_references():
    tree = {"$defs": {"tree": {"type": "object", "properties": {
        "value": {"type": "integer"}, "children": {"type": "array", "items": {"$ref": "#/$defs/tree"}}},
        "required": ["value", "children"], "additionalProperties": False}}, "$ref": "#/$defs/tree"}
    document = {"value": 1, "children": [{"value": 2, "children": []}, {"value": 3, "children": [
        {"value": 4, "children": []}]}]}
    answer, = ask([question(tree, [json.dumps(document), '{"value":1}'], walks=30)])
    assert answer["accepted"] == [True, False]
    validator = jsonschema.Draft202012Validator(tree)
    outputs = [json.loads(output) for output in answer["outputs"] if output is not None]
    assert len(outputs) >= 20 and all(validator.is_valid(output) for output in outputs)


def test_json_objects():
    documents = ['{}', '{"a": {"b": [1, -2.5e3, "\\u00e9", null]}}', '[]', '1', '{"a": 01}', '{"a" :1}', '{"a":1}}',
                 '{"a": "\\ud83d"}', '{"a": "\\ud83d\\ude00"}', '{"a": "\n"}', '{"a": tru}', "{'a': 1}"]
    expected = [True, True] + [False] * 6 + [True] + [False] * 3
    answer, = ask([{"kind": "object", "source": "", "accept": documents, "walks": 200, "seed": 3}])
    assert answer["accepted"] == expected
    outputs = [json.loads(output) for output in answer["outputs"] if output is not None]
    assert len(outputs) >= 150 and all(isinstance(output, dict) for output in outputs)


@pytest.mark.parametrize("pattern,texts", [
    (r"(ab|cd)*e?", ["", "ab", "abcde", "abce", "ace", "e", "ee"]),
    (r"[\w.-]+@\w+\.(com|org)", ["a.b@c.com", "a@b.net", "@c.com"]),
    (r"^\d{3}-?\d{4}$", ["555-1234", "5551234", "55-1234", "555-12345"]),
    (r"[^\x00-\x7f]+", ["é", "日本", "a", "😀", ""]),
    (r".{0,4}?x{2,}", ["xx", "axxx", "x", "\nxx"]),
    (r"[α-ω]{1,3}|\u{1F600}", ["αβγ", "😀", "αβγδ", "a"]),
])
def test_regular_expressions_agree_with_python(pattern, texts):
    compiled = re.compile(pattern.replace(r"\u{1F600}", "\U0001F600"))
    answer, = ask([{"kind": "regex", "source": pattern, "accept": texts, "walks": 50, "seed": 9}])
    assert answer["accepted"] == [compiled.fullmatch(text) is not None for text in texts]
    outputs = [output for output in answer["outputs"] if output is not None]
    assert len(outputs) >= 30 and all(compiled.fullmatch(output) for output in outputs)
