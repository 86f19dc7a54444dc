"""Tokenises a folder of text files: `val.txt` is the validation shard, all others are trained on.

    python -m nsa_torch.prepare --text text --work work --tokenizer tokenizer.model
"""

import argparse

from . import data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", required=True)
    parser.add_argument("--work", required=True)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--processes", type=int, default=16)
    args = parser.parse_args()
    data.prepare(args.text, args.work, args.tokenizer, args.processes)


if __name__ == "__main__":
    main()
