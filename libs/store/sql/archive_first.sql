SELECT sequence FROM event_log WHERE stream = $1 ORDER BY sequence LIMIT 1
