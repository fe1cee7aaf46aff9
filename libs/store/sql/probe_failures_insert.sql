INSERT INTO probe_failures (rollout_id, hostname, probe_name, ordinal, control_id, framework,
                            observed_at, input_seq, input_index)
SELECT n.rollout_id, n.hostname, n.probe_name, n.ordinal, n.control_id, n.framework,
       n.observed_at, n.input_seq, n.input_index
FROM unnest($1::text[], $2::text[], $3::text[], $4::integer[], $5::text[], $6::text[],
            $7::timestamptz[], $8::bigint[], $9::bigint[])
     AS n (rollout_id, hostname, probe_name, ordinal, control_id, framework, observed_at,
           input_seq, input_index)
WHERE EXISTS (SELECT FROM host_rollout_records AS r
              WHERE r.rollout_id = n.rollout_id AND r.hostname = n.hostname)
