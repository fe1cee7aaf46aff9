-- Hosts of a wave that a hold applies to: Pending and without a dispatch under way.
SELECT h.hostname
FROM host_rollout_records AS h
WHERE h.rollout_id = $1 AND h.wave = $2 AND h.state = 'Pending'
  AND NOT EXISTS (SELECT FROM dispatch_queue AS d
                  WHERE d.rollout_id = h.rollout_id AND d.hostname = h.hostname)
ORDER BY h.hostname
