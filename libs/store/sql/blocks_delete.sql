DELETE FROM gate_blocks AS b
USING unnest($1::text[], $2::bigint[], $3::text[]) AS n (rollout_id, wave, gate)
WHERE b.rollout_id = n.rollout_id AND b.wave = n.wave AND b.gate = n.gate
