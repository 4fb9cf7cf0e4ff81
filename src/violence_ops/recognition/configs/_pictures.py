"""What the networks on pictures have in common: whom they see, and of how many windows. No family itself."""

max_persons = 2  # the pictures are cut around them
max_windows_per_clip = 32  # of a long clip, spread evenly: one long video must not outweigh the others in training
