import pathlib
import sys

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "training"))

SENTENCES = """The fox ran over the hill. It was a cold morning, and nobody was awake.

"Where are you going?" asked the miller. "To the sea," said the fox.

Question: What is the secret number of the old mill? They all knew that it was written down.

Remember the lantern. The answer has a number, which was never told.
"""


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory):
    """A tiny tokenizer trained as training/tokenizer.py trains the real one."""
    import sentencepiece as spm
    import tokenizer as trainer

    folder = tmp_path_factory.mktemp("tokenizer")
    sample = folder / "sample.txt"
    sample.write_text("\n".join(line for line in SENTENCES.splitlines() if line))
    trainer.train(sample, folder / "tokenizer.model", vocab_size=420)
    trainer.check(folder / "tokenizer.model")
    return spm.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))


@pytest.fixture(scope="session")
def corpus_text():
    return SENTENCES
