SELECT ARRAY[rollout_id, hostname, probe_name, lpad(ordinal::text, 10, '0')],
       jsonb_build_object('controlId', control_id, 'framework', framework,
                          'observedAt', (extract(epoch FROM observed_at) * 1000000)::bigint,
                          'inputSeq', input_seq, 'inputIndex', input_index)::text
FROM probe_failures
WHERE rollout_id = $1
ORDER BY hostname, probe_name, ordinal
