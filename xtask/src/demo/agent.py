"""What an AI agent with a database tool does on an ordinary day. It knows nothing of Verbatim.

Plain psycopg, its connection string in the first argument. It answers a question, gets a column wrong,
corrects an order in a transaction, and then tries something that it should not.
"""

import sys

import psycopg


def say(text):
    print(f"agent: {text}", flush=True)


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
        connection.execute("UPDATE purchase SET amount = amount - %s WHERE id = %s", (10, 5))
        connection.execute("SELECT amount FROM purchase WHERE id = %s", (5,))

    say("these old customers are only in the way")
    try:
        connection.execute("DELETE FROM customer WHERE city = 'Lyon'")
    except psycopg.errors.InsufficientPrivilege as error:
        say(f"not allowed: {error.diag.message_primary}")
