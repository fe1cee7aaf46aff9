SELECT hostname, channel, last_seen_at, current_closure FROM hosts WHERE hostname = $1
