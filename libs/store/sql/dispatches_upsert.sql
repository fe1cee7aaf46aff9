INSERT INTO dispatch_queue (rollout_id, hostname, record, input_seq, input_index, traceparent,
                            target_closure, soak_minutes, enqueued_at)
SELECT n.*
FROM unnest($1::text[], $2::text[], $3::jsonb[], $4::bigint[], $5::bigint[], $6::text[],
            $7::text[], $8::double precision[], $9::timestamptz[])
     AS n (rollout_id, hostname, record, input_seq, input_index, traceparent, target_closure,
           soak_minutes, enqueued_at)
WHERE EXISTS (SELECT FROM host_rollout_records AS r
              WHERE r.rollout_id = n.rollout_id AND r.hostname = n.hostname)
ON CONFLICT (rollout_id, hostname) DO UPDATE
SET record = excluded.record, input_seq = excluded.input_seq, input_index = excluded.input_index,
    traceparent = excluded.traceparent, target_closure = excluded.target_closure,
    soak_minutes = excluded.soak_minutes, enqueued_at = excluded.enqueued_at
