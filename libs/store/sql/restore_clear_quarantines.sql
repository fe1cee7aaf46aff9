DELETE FROM quarantined_closures WHERE partition = $1
