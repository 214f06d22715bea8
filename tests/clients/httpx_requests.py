"""httpx with HTTP/2 against the mirror: httpx_requests.py WHAT."""

import asyncio
import sys

import httpx

from vlab import new, say

MIRROR = "https://mirror.googleapis.com"


def path(how, name):
    return f"{MIRROR}/{how}/id:{new(name)}"


async def client():
    # As in many programs: the roots that the environment names, HTTP/2 where the server has it.
    return httpx.AsyncClient(http2=True, timeout=120)


async def all():
    """Each kind of answer once."""
    async with await client() as http:
        answer = await http.get(path("echo", "get"), headers={"x-lab": "yes"})
        assert answer.http_version == "HTTP/2", answer.http_version
        assert ["x-lab", "yes"] in answer.json()["headers"]
        body = b"x" * 100_000
        answer = await http.post(path("echo", "post"), content=body)
        assert answer.json()["bytes"] == len(body)
        answer = await http.get(f"{MIRROR}/bytes/1000000/id:{new('large')}")
        assert len(answer.content) == 1_000_000
        answer = await http.get(path("gzip", "gzip"))
        assert answer.headers["content-encoding"] == "gzip" and answer.json()["method"] == "GET"
        answer = await http.get(f"{MIRROR}/status/404/id:{new('missing')}")
        assert answer.status_code == 404

        async def parts():
            for number in range(10):
                yield b"part %d " % number
                await asyncio.sleep(0.01)

        answer = await http.post(path("duplex", "duplex"), content=parts())
        assert answer.content == b"".join([b"part %d " % number for number in range(10)])


async def reset():
    """A request is held, and its client gives it up; the connection goes on."""
    async with await client() as http:
        held = asyncio.create_task(http.post(f"{MIRROR}/echo/lab:hold=3600/id:{new('held')}", content=b"x"))
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        held.cancel()
        try:
            await held
        except asyncio.CancelledError:
            pass
        answer = await http.get(path("echo", "after"))
        assert answer.status_code == 200


async def denied():
    """Denied with 403; the connection goes on."""
    async with await client() as http:
        answer = await http.post(f"{MIRROR}/echo/lab:deny/id:{new('denied')}", content=b"x" * 100_000)
        assert answer.status_code == 403, answer
        assert "the lab says no" in answer.text, answer.text
        answer = await http.get(path("echo", "after"))
        assert answer.status_code == 200


async def misdirected():
    """For another host than TLS was made for: 421, before a byte of the body; other streams go on meanwhile."""
    async with await client() as http:
        assert (await http.get(path("echo", "before"))).status_code == 200
        other = {"host": "storage.googleapis.com"}
        body = b"x" * 100_000
        answer, beside = await asyncio.gather(
            http.post(path("echo", "misdirected"), headers=other, content=body),
            http.get(f"{MIRROR}/bytes/1000000/id:{new('beside')}"),
        )
        assert answer.status_code == 421 and answer.http_version == "HTTP/2", answer
        error = answer.json()["error"]
        assert error["code"] == 421 and error["status"] == "FAILED_PRECONDITION", error
        assert "another host" in error["message"], error
        assert len(beside.content) == 1_000_000
        for written in ("mirror.googleapis.com:443", "Mirror.GoogleAPIs.com", "mirror.googleapis.com."):
            answer = await http.get(path("echo", "same"), headers={"host": written})
            assert answer.status_code == 200, (written, answer)


async def replaced():
    """A header is replaced on the way."""
    async with await client() as http:
        answer = await http.get(f"{MIRROR}/echo/lab:replace/id:{new('replaced')}", headers={"x-lab-replaced": "no"})
        values = [value for name, value in answer.json()["headers"] if name == "x-lab-replaced"]
        assert values == ["yes"], values


asyncio.run(globals()[sys.argv[1]]())
say("done")
