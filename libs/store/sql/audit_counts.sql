SELECT 'partition_cursors', count(*) FROM partition_cursors
UNION ALL SELECT 'rollouts', count(*) FROM rollouts
UNION ALL SELECT 'host_rollout_records', count(*) FROM host_rollout_records
UNION ALL SELECT 'quarantined_closures', count(*) FROM quarantined_closures
UNION ALL SELECT 'probe_failures', count(*) FROM probe_failures
UNION ALL SELECT 'dispatch_queue', count(*) FROM dispatch_queue
UNION ALL SELECT 'gate_blocks', count(*) FROM gate_blocks
UNION ALL SELECT 'hosts', count(*) FROM hosts
