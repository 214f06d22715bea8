"""What the lab's Python clients share: ids, and lines that say what was done."""

import json
import os
import sys
from pathlib import Path

PREFIX = os.environ["VLAB_PREFIX"] + Path(sys.argv[0]).stem + "-"


def new(name):
    """The id of a statement, unique within the scenario."""
    return PREFIX + name


def mark(name, text):
    """The statement with its id in it."""
    return f"{text} /* id:{new(name)} */"


def did(name, statement=None, **outcome):
    """Says what was done: see tests/src/did.rs for the fields."""
    line = {"id": new(name), **outcome}
    if isinstance(statement, bytes):
        line["statement_hex"] = statement.hex()
    elif statement is not None:
        line["statement"] = statement
    print(json.dumps(line), flush=True)


def say(text):
    """For a scenario that waits for the client to reach a point."""
    print(text, flush=True)


def called(method, **outcome):
    """Says which method of an API was called, where nothing in the call could carry an id."""
    print(json.dumps({"call": method, **outcome}), flush=True)
