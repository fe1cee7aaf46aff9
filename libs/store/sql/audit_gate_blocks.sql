SELECT ARRAY[rollout_id, lpad(wave::text, 10, '0'), gate],
       jsonb_build_object('holds', holds,
                          'observedAt', (extract(epoch FROM observed_at) * 1000000)::bigint,
                          'inputSeq', input_seq, 'inputIndex', input_index)::text
FROM gate_blocks
WHERE rollout_id = $1
ORDER BY wave, gate
