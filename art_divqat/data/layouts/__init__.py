"""Public data sets of pictures in the layouts that their archives unpack to: each a function that lists the files."""
