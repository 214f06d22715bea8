"""Ends TLS for a server without it: front.py ADDRESS PORT CERTIFICATE KEY TO-PORT."""

import asyncio
import ssl
import sys


async def pipe(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except (ConnectionError, ssl.SSLError):
        pass
    finally:
        writer.close()


async def main():
    address, port, certificate, key, to = sys.argv[1:]

    async def serve(reader, writer):
        there = await asyncio.open_connection("127.0.0.1", int(to))
        await asyncio.gather(pipe(reader, there[1]), pipe(there[0], writer), return_exceptions=True)

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["http/1.1"])
    server = await asyncio.start_server(serve, address, int(port), ssl=context)
    await server.serve_forever()


asyncio.run(main())
