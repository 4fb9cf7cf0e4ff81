"""What people look at: overlays, explanations, a summary of annotations, and the check of what is stored."""
