"""What an AI agent with a BigQuery tool does on an ordinary day. It knows nothing of Verbatim.

Google's own client; only the credentials are left out, since the demo's BigQuery asks for none.
"""

from google.api_core import exceptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery


def say(text):
    print(f"analyst: {text}", flush=True)


client = bigquery.Client(project="demo-project", credentials=AnonymousCredentials())

say("I set up a table of visits")
client.create_dataset("web")
client.query("CREATE TABLE web.visit (city STRING, visits INT64)").result()
client.query("INSERT INTO web.visit VALUES ('Lyon', 120), ('Porto', 45), ('Turin', 80)").result()

say("where do most come from?")
config = bigquery.QueryJobConfig(
    query_parameters=[bigquery.ScalarQueryParameter("least", "INT64", 50)], labels={"tool": "demo"}
)
rows = client.query_and_wait(
    "SELECT city, visits FROM web.visit WHERE visits >= @least ORDER BY visits DESC", job_config=config
)
say(", ".join(f"{row.city} {row.visits}" for row in rows))

say("what did they pay? that should be somewhere")
try:
    client.query("SELECT sum(amount) FROM web.payment").result()
except exceptions.GoogleAPICallError as error:
    say(f"no: {error.message.splitlines()[0]}")

say("nobody needs the table any more")
client.delete_table("web.visit")
