INSERT INTO hosts (hostname, channel, last_seen_at, current_closure)
SELECT n.hostname, n.channel, n.last_seen_at, n.current_closure
FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::text[])
     AS n (hostname, channel, last_seen_at, current_closure)
ON CONFLICT (hostname) DO UPDATE
SET channel = excluded.channel, last_seen_at = excluded.last_seen_at,
    current_closure = coalesce(excluded.current_closure, hosts.current_closure)
WHERE hosts.last_seen_at < excluded.last_seen_at
