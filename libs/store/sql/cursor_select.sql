SELECT record::text FROM partition_cursors WHERE partition = $1
