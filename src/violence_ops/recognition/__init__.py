"""Fight or not, from skeletons: windows, STGCN++ through MMAction2, the vote over windows, and the model package."""
