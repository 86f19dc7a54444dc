"""Tokenises a folder of text files: `val.txt` is the validation shard, all others are trained on.

    python -m nsa_torch.prepare pack --text text --packed packed --tokenizer tokenizer.model
    python -m nsa_torch.prepare unpack --packed packed --work work --tokenizer tokenizer.model

The packed tokens are what is carried to the training machine.
"""

import argparse

from . import data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=("pack", "unpack"))
    parser.add_argument("--text")
    parser.add_argument("--packed", required=True)
    parser.add_argument("--work")
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    if args.action == "pack":
        data.pack(args.text, args.packed, args.tokenizer, args.processes)
    else:
        data.unpack(args.packed, args.work, args.tokenizer)


if __name__ == "__main__":
    main()
