-- What the gateway for agents may know of rollouts and hosts: which exist, and nothing of their records.

CREATE VIEW known_rollouts AS
SELECT rollout_id, partition, state
FROM rollouts;
COMMENT ON VIEW known_rollouts IS 'Rollouts that the fold knows, in any state.';
COMMENT ON COLUMN known_rollouts.rollout_id IS 'The rollout.';
COMMENT ON COLUMN known_rollouts.partition IS 'Its partition.';
COMMENT ON COLUMN known_rollouts.state IS 'Its state.';

CREATE VIEW rollout_members AS
SELECT rollout_id, hostname
FROM host_rollout_records;
COMMENT ON VIEW rollout_members IS 'Hosts of each rollout.';
COMMENT ON COLUMN rollout_members.rollout_id IS 'The rollout.';
COMMENT ON COLUMN rollout_members.hostname IS 'The host.';
