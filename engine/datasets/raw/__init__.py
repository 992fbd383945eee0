"""Tables as people have them: their files, separators, types, missing values, times and lists."""
