SELECT ARRAY[rollout_id],
       jsonb_build_object('record', record, 'manifestHash', manifest_hash, 'hostCount', host_count,
                          'waveCount', wave_count, 'onHealthFailure', on_health_failure,
                          'pinned', pinned,
                          'inputSeq', input_seq, 'inputIndex', input_index)::text
FROM rollouts
WHERE partition = $1::text::integer
ORDER BY rollout_id
