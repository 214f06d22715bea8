"""What an AI agent with a database tool does on an ordinary day. It knows nothing of Verbatim.

Plain psycopg, its connection string in the first argument, a file with the delegation that its framework was given in
the second. It answers a question, gets a column wrong,
corrects an order in a transaction, and then tries something that it should not.
"""

import sys
from pathlib import Path

import psycopg

DELEGATION = Path(sys.argv[2]).read_text()


def say(text):
    print(f"agent: {text}", flush=True)


def asked(statement, tool):
    """The statement as the framework sends it: sqlcommenter says who asked, and which tool it is."""
    return f"{statement} /*on_behalf_of='{DELEGATION}',session_id='chat-17',tool='{tool}'*/"


with psycopg.connect(sys.argv[1], autocommit=True) as connection:
    say("who are our customers in Lyon?")
    lyon = connection.execute("SELECT id, name FROM customer WHERE city = %s ORDER BY id", ("Lyon",)).fetchall()
    say(", ".join(name for _, name in lyon))

    say("how much did they spend?")
    try:
        connection.execute("SELECT sum(price) FROM purchase WHERE customer = ANY(%s)", ([1, 4],))
    except psycopg.errors.UndefinedColumn:
        say("there is no such column; another try")
    total = connection.execute("SELECT sum(amount) FROM purchase WHERE customer = ANY(%s)", ([1, 4],)).fetchone()
    say(f"{total[0]}")

    say("order 5 was billed wrongly, I correct it")
    with connection.transaction():
        connection.execute(asked("UPDATE purchase SET amount = amount - %s WHERE id = %s", "billing"), (10, 5))
        connection.execute("SELECT amount FROM purchase WHERE id = %s", (5,))

    say("these old customers are only in the way")
    try:
        connection.execute(asked("DELETE FROM customer WHERE city = 'Lyon'", "cleanup"))
    except psycopg.errors.InsufficientPrivilege as error:
        say(f"not allowed: {error.diag.message_primary}")
