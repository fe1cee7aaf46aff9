-- What the manifest of a rollout pinned, beside its hosts, so that state is restored from rows alone.
--
-- Null in rows that were written before this column was there: for those the artifact is asked.

ALTER TABLE rollouts ADD COLUMN pinned jsonb;
COMMENT ON COLUMN rollouts.pinned IS 'Policy, waves and disruption budgets as pinned when it opened; the pinned hosts are its rows of host_rollout_records. Null when it opened before the rows held this.';
