"""Credentials in every place where one can be, by Python's own HTTP client and psycopg. What is planted holds the
word by which it is searched for."""

import json
import sys
import urllib.error
import urllib.parse
import urllib.request

from vlab import new, say

METADATA = "http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default"
MIRROR = "https://mirror.googleapis.com"
count = 0


def planted(before="plantedsecret"):
    global count
    count += 1
    return f"{before}{count:03}"


def jws():
    return "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhZGEifQ." + planted()


def ask(name, url, headers=None, data=None, method=None):
    if isinstance(data, dict):
        data = json.dumps(data).encode()
        headers = {**(headers or {}), "content-type": "application/json"}
    url = url.replace("ID", "id:" + new(name))
    request = urllib.request.Request(url, data=data, headers=headers or {}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.read()
    except urllib.error.HTTPError as error:
        return error.read()


def form(**fields):
    return urllib.parse.urlencode(fields).encode()


def token():
    reply = ask("metadata", METADATA + "/token", {"metadata-flavor": "Google"})
    return json.loads(reply)["access_token"]


def use(name, bearer, delegation):
    headers = {
        "authorization": "Bearer " + bearer,
        "baggage": "session.id=s1,on-behalf-of=" + delegation,
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    }
    ask(name, MIRROR + "/echo/ID", headers)


def heads():
    headers = [
        {"authorization": "Bearer ya29." + planted()},
        {"authorization": "Bearer " + jws()},
        {"authorization": "Basic YWRhOnBsYW50ZWRzZWNyZXQ="},
        {"authorization": planted()},
        {"proxy-authorization": "Digest " + planted()},
        {"cookie": "session=" + planted()},
        {"x-goog-api-key": planted("AIzaplantedsecret")},
        {"x-goog-iam-authorization-token": planted()},
        {"baggage": "on-behalf-of=" + jws()},
        {"on-behalf-of": jws()},
        {"x-goog-request-reason": "because " + jws() + " ya29." + planted()},
        {"user-agent": "agent ya29." + planted()},
        {"range": "bytes=" + jws()},
    ]
    for number, one in enumerate(headers):
        ask(f"head{number}", MIRROR + "/echo/ID", one)
    queries = [
        "key=" + planted(),
        "access_token=ya29." + planted(),
        "X-Goog-Credential=a%40p.iam.gserviceaccount.com%2F1&X-Goog-Signature=" + planted(),
        "upload_id=" + planted(),
        "x=" + jws(),
    ]
    for number, one in enumerate(queries):
        ask(f"query{number}", MIRROR + "/echo/ID?" + one)
    ask("path", MIRROR + "/echo/ID/" + jws())


def services():
    ask("sts", "https://sts.googleapis.com/v1/token", data=form(
        grant_type="urn:ietf:params:oauth:grant-type:token-exchange", subject_token=jws(), actor_token=planted(),
        scope="a b", audience="//iam.googleapis.com/projects/1"))
    ask("stsjson", "https://sts.googleapis.com/v1/token", data={"subjectToken": jws(), "options": planted()})
    ask("oauth2", "https://oauth2.googleapis.com/token", data=form(
        grant_type="refresh_token", refresh_token="1//" + planted(), client_secret=planted(), client_id="c"))
    account = "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/a@p.iam.gserviceaccount.com"
    ask("iam", account + ":generateAccessToken", {"authorization": "Bearer ya29." + planted()},
        {"scope": ["a"], "lifetime": "3600s", "delegates": [], "x": planted()})
    ask("signjwt", account + ":signJwt", data={"payload": json.dumps({"sub": planted()})})
    ask("identity", METADATA + "/identity?audience=x", {"metadata-flavor": "Google"})
    query = {
        "query": f"SELECT 'ya29.{planted()}', 'postgres://u:{planted()}@h' /*on_behalf_of='{jws()}'*/",
        "labels": {"on_behalf_of": "ya29." + planted()},
        "requestId": jws(),
        "queryParameters": [{
            "name": "p", "parameterType": {"type": "STRING"}, "parameterValue": {"value": "ya29." + planted()},
        }],
    }
    ask("bigquery", "https://bigquery.googleapis.com/bigquery/v2/projects/p/queries", data=query)


def database():
    import psycopg

    with psycopg.connect(autocommit=True) as connection:
        def run(*arguments, **options):
            try:
                connection.execute(*arguments, **options)
            except psycopg.Error:
                pass

        run(f"ALTER ROLE clerk PASSWORD '{planted()}'")
        run(f"ALTER ROLE clerk PASSWORD E'\\'{planted()}'")
        run(f"ALTER ROLE clerk PASSWORD U&'{planted()}'")
        run(f"ALTER ROLE clerk PASSWORD $${planted()}$$")
        run(f"ALTER ROLE clerk PASSWORD $tag${planted()}$tag$")
        run(f"ALTER ROLE clerk PASSWORD /* now */ '{planted()}' -- done")
        run(f"ALTER ROLE clerk PASSWORD 'a'\n'{planted()}'")
        run(f"ALTER ROLE clerk PASSWORD 'a' '{planted()}'")
        run(f"ALTER ROLE clerk PASSWORD '{planted()}' nonsense")
        run(f"ALTER ROLE clerk PASSWORD '{planted()}")
        run(f"ALTER ROLE nobody PASSWORD $${planted()}")
        run(f"SELECT 1 /* ALTER ROLE clerk PASSWORD '{planted()}' */")
        run(f"SELECT 1 -- PASSWORD '{planted()}'")
        run(f"SELECT 1 AS \"a\" WHERE 'host=h password={planted()}' = 'postgres://u:{planted()}@h/d'")
        run(f"SELECT 'postgres://u:{planted()}@h'::int")
        run(f"SELECT 1; ALTER ROLE clerk PASSWORD '{planted()}'; SELECT 2")
        run(f"SELECT 'ya29.{planted()}', '{jws()}'")
        run(f"SELECT 'ya29.{planted()}'::int")
        run(f"SELECT 1 /*on_behalf_of='{jws()}'*/")
        run(f"DO $do$ BEGIN RAISE NOTICE 'token %', 'ya29.{planted()}'; END $do$")
        run(f"DO $do$ BEGIN RAISE EXCEPTION 'token %', '{jws()}'; END $do$")
        run("SELECT %s, %s", ["ya29." + planted(), jws()])
        run("SELECT %s::text::int", ["ya29." + planted()])
        run(f"SET application_name = 'x on-behalf-of={jws()}'")
        run("SELECT 'after the name was set'")
        try:
            with connection.pipeline():
                connection.execute(f"ALTER ROLE clerk PASSWORD '{planted()}'")
                connection.execute("SELECT %s", [1])
                connection.execute(f"ALTER ROLE clerk PASSWORD '{planted()}' nonsense")
                connection.execute("SELECT %s", [2])
        except psycopg.Error:
            pass


match sys.argv[1]:
    case "own":
        use("own", token(), sys.argv[2])
    case "with":
        use("with", sys.argv[3], sys.argv[2])
    case "all":
        own = token()
        use("own", own, jws())
        heads()
        services()
        database()
        say(f"planted {count}")
say("done")
