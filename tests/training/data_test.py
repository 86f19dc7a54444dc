"""Rows tokenise as their text would, answers are where they are said to be, batches repeat exactly."""

import pytest

torch = pytest.importorskip("torch")
np = pytest.importorskip("numpy")

from nsa_torch import data, retrieval
from nsa_torch.evaluate import planted_row
from nsa_torch.retrieval import ANSWER, BOS, EOS, IGNORED, PARAGRAPH


@pytest.fixture(scope="module")
def corpus(tokenizer, corpus_text):
    one = tokenizer.encode(corpus_text) + [EOS]
    tokens = np.asarray(one * 60, dtype=np.int16)
    return tokens, data.find_cuts(tokens, tokenizer), retrieval.FactBook(tokenizer)


def rows_of(corpus, mixture, context=512, batch_rows=4):
    return data.Rows(*corpus, context, batch_rows, mixture, seed=3)


@pytest.mark.parametrize("context", [256, 512, 2048])
def test_question_rows_tokenise_like_their_text(corpus, tokenizer, context):
    tokens, kinds = rows_of(corpus, data.Mixture(1.0, 0.0), context)[0]
    for row, kind in zip(tokens.numpy(), kinds.numpy()):
        assert row[0] == BOS and len(kind) == context and (kind == ANSWER).any()
        for part in np.split(row[1:], np.flatnonzero(row[1:] == EOS) + 1):
            ids = [int(token) for token in part if token != EOS]
            ids = ids[ids.index(PARAGRAPH):] if PARAGRAPH in ids else []
            if ids:  # encode() puts a blank in front of the whole text only
                assert tokenizer.encode(tokenizer.decode(ids))[1:] == ids


def runs(index):
    """Splits increasing indices where they are not consecutive."""
    return np.split(index, np.flatnonzero(np.diff(index) > 1) + 1)


def test_answers_repeat_digits_of_an_earlier_fact(corpus, tokenizer):
    tokens, kinds = rows_of(corpus, data.Mixture(1.0, 0.0), 1024)[1]
    for row, kind in zip(tokens.numpy(), kinds.numpy()):
        targets = row[1:]
        groups = lambda value: runs(np.flatnonzero(kind == value))
        facts = [tuple(targets[g]) for g in groups(IGNORED)]
        for answer in groups(ANSWER):
            assert tuple(targets[answer]) in facts
            assert tokenizer.decode([int(t) for t in targets[answer]]).strip().isdigit()


def test_a_batch_depends_only_on_its_step(corpus):
    mixture = data.Mixture(0.4, 0.3, 0.5)
    first = rows_of(corpus, mixture)
    expected = [first[step] for step in range(3)]
    again = rows_of(corpus, mixture)
    for step in (2, 0, 1):
        for a, b in zip(again[step], expected[step]):
            assert torch.equal(a, b)


def test_held_out_combinations_are_never_drawn_for_training(corpus):
    rng = np.random.default_rng(0)
    keys = [key for _ in range(50) for key in corpus[2].draw_keys(rng, 8, held_out=False)]
    assert not any(retrieval.is_held_out(*key) for key in keys)


@pytest.mark.parametrize("distractors", [0, 4])
def test_planted_row_has_its_fact_where_it_says(corpus, distractors):
    class Shard:
        val, val_cuts, book = corpus

    for seed in range(10):
        rng = np.random.default_rng(seed)
        row, kinds, fact = planted_row(Shard, rng, 512, seed / 10, distractors)
        asked = row[1:][kinds == ANSWER]
        assert len(row) == 513 and len(asked) == 5
        assert (row[fact : fact + 5] == asked).all()


def test_pack_and_unpack(tokenizer, corpus_text, tmp_path):
    model = tmp_path / "tokenizer.model"
    model.write_bytes(tokenizer.serialized_model_proto())
    text = tmp_path / "text"
    text.mkdir()
    for name in ("00.txt", "val.txt"):
        (text / name).write_text(corpus_text + "\n<|endoftext|>\n" + corpus_text)
    data.pack(text, tmp_path / "packed", str(model), 1)
    data.unpack(tmp_path / "packed", tmp_path / "work", str(model))
    tokens = np.load(tmp_path / "work" / "train.npy")
    assert (tokens == EOS).sum() == 2
    assert tokens[:-1].tolist()[: len(tokens) // 2 - 1] == tokenizer.encode(corpus_text.strip("\n"))
    assert int((tmp_path / "work" / "val_bytes.txt").read_text()) == 2 * len(corpus_text.strip("\n").encode())
