SELECT i.rollout_id, i.input_seq, i.input_index, i.ts, i.kind, i.hostname, i.payload::text,
       o.payload::text, i.traceparent
FROM event_log AS i
LEFT JOIN LATERAL (
    SELECT v.payload FROM event_log AS v
    WHERE v.rollout_id = i.rollout_id AND v.input_seq = i.input_seq
      AND v.input_index = i.input_index AND v.payload ? 'subject'
    LIMIT 1
) AS o ON true
WHERE i.rollout_id = $1 AND (i.input_seq, i.input_index) > ($2, $3) AND i.payload ? 'body'
ORDER BY i.input_seq, i.input_index
LIMIT $4
