SELECT ensure_event_log_day($1::date)::text
