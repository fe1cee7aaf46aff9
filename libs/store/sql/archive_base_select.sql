SELECT reference::text FROM archive_bases WHERE stream = $1 ORDER BY first_sequence DESC LIMIT 1
