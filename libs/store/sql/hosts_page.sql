SELECT hostname, rollout_id, record::text, wave, staged, dispatch::text, recovery_candidate,
       input_seq, input_index, traceparent, last_seen_at, running_closure, quarantined,
       compliance_failures, health_failures
FROM host_views AS h
WHERE (h.hostname, h.rollout_id) > ($1, $2)
  AND ($4::text[] IS NULL OR split_part(h.rollout_id, '@', 1) = ANY ($4))
  AND EXISTS (SELECT FROM rollouts AS r
              WHERE r.rollout_id = h.rollout_id AND r.state NOT IN ('Superseded', 'Pruned'))
ORDER BY h.hostname, h.rollout_id
LIMIT $3
