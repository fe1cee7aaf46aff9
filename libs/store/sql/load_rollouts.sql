SELECT rollout_id, record::text, manifest_hash, input_seq, input_index, pinned::text, host_count
FROM rollouts WHERE partition = $1 ORDER BY rollout_id
