DELETE FROM dispatch_queue WHERE rollout_id = ANY ($1::text[])
