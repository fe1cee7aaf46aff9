SELECT sequence, index, ts, kind, payload::text, outcomes::text, subject, rollout_id, hostname, traceparent
FROM event_log
WHERE stream = $1 AND sequence BETWEEN $2 AND $3
ORDER BY sequence, index
