"""The data set `folder`: a user's own images and masks, and what proposes its section and shows its samples."""
