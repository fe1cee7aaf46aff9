TRUNCATE partition_cursors, rollouts, host_rollout_records, quarantined_closures, probe_failures,
         dispatch_queue, gate_blocks
