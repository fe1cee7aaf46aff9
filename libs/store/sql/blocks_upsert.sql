INSERT INTO gate_blocks (rollout_id, wave, gate, holds, observed_at, input_seq, input_index)
SELECT n.rollout_id, n.wave, n.gate, n.holds::jsonb, n.observed_at, n.input_seq, n.input_index
FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::timestamptz[], $6::bigint[],
            $7::bigint[])
     AS n (rollout_id, wave, gate, holds, observed_at, input_seq, input_index)
WHERE EXISTS (SELECT FROM rollouts AS r WHERE r.rollout_id = n.rollout_id)
ON CONFLICT (rollout_id, wave, gate) DO UPDATE
SET holds = excluded.holds, observed_at = excluded.observed_at, input_seq = excluded.input_seq,
    input_index = excluded.input_index
