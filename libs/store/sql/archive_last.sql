SELECT sequence FROM event_log WHERE stream = $1 ORDER BY sequence DESC LIMIT 1
